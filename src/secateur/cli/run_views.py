"""What the terminal shows of several runs: the list, and a comparison."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from secateur.errors import StateError
from secateur.pipelines.comparison import Comparison
from secateur.pipelines.run import read_record
from secateur.pipelines.state import RunFolder
from secateur.report.summary import headline


def show_runs(runs: Sequence[RunFolder], *, as_json: bool) -> None:
    """Each run with its state and what came of it."""
    listed = [_entry(run) for run in runs]
    if as_json:
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return
    table = Table(header_style="bold")
    for heading in ("run", "pipeline", "started", "state", "best", "outcome"):
        table.add_column(heading, overflow="fold")
    for entry in listed:
        table.add_row(*(str(entry[key] or "") for key in ("run", "pipeline", "started", "state", "best", "outcome")))
    _console().print(table)


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


def show_comparison(found: Comparison, *, as_json: bool) -> None:
    """A column for each run."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
        return
    console = _console()
    for warning in found.warnings:
        console.print(f"[yellow]{warning}[/]", highlight=False, soft_wrap=True)
    table = Table(header_style="bold")
    for heading in ("", *found.runs):
        table.add_column(heading, overflow="fold", justify="right" if heading else "left")
    for what, values in found.rows.items():
        table.add_row(what, *map(_text, values))
    console.print(table)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " … ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"  # five digits and more are counts and bytes
    return "–" if value is None else str(value)


def _console() -> Console:
    """A console that keeps tables whole in a log file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
