"""What the terminal shows of several runs: the list, and a comparison."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from secateur.cli.tables import console, say, show_table
from secateur.errors import StateError
from secateur.pipelines.comparison import Comparison
from secateur.pipelines.reading import read_record
from secateur.pipelines.state import RunFolder
from secateur.report import Column, Row, Table, headline

RUNS = (
    Column("run", 0, text=True),
    Column("pipeline", 3, text=True),
    Column("started", 4, text=True),
    Column("state", 1, text=True),
    Column("best", 2, text=True),
    Column("outcome", 0, text=True, prose=True),
)


def show_runs(runs: Sequence[RunFolder], *, as_json: bool) -> None:
    """Each run with its state and what came of it."""
    listed = [_entry(run) for run in runs]
    if as_json:
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return
    rows = (Row(tuple(str(entry[column.heading] or "") for column in RUNS)) for entry in listed)
    show_table(console(), Table(RUNS, tuple(rows)))


def _entry(run: RunFolder) -> Mapping[str, Any]:
    state = "finished" if run.done else "not registered yet" if run.judged else "unfinished"
    entry = {"run": run.run_id, "pipeline": run.pipeline, "started": run.started, "state": state}
    if not run.judged:
        return {**entry, "best": None, "outcome": None}
    try:
        record = read_record(run)
    except StateError as error:  # one that another version wrote must not hide the others
        return {**entry, "best": None, "outcome": str(error)}
    return {**entry, "best": record.knee, "outcome": headline(record)}


def show_comparison(comparison: Comparison, *, as_json: bool) -> None:
    """A column for each run."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(comparison), indent=2) + "\n")
        return
    out = console()
    for warning in comparison.warnings:
        say(out, warning, "yellow")
    runs = (Column(name, place) for place, name in enumerate(comparison.runs))
    rows = (Row((what, *map(_text, values))) for what, values in comparison.rows.items())
    show_table(out, Table((Column("figure", 0, text=True), *runs), tuple(rows)))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " … ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"  # five digits and more are counts and bytes
    return "–" if value is None else str(value)
