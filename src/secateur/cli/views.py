"""What the terminal shows when a command has ended: tables and where things are."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from secateur.cli.tables import console, listing, say, show_table
from secateur.formatting import interval, short
from secateur.pipelines.reading import read_record, versions_of
from secateur.pipelines.state import RunFolder
from secateur.records import RunRecord, Version
from secateur.report import Column, Row, Table, before_and_after, gate_table, headline
from secateur.report.audit import audit_facts
from secateur.report.summary import uncertain

if TYPE_CHECKING:  # torch is slow to import, and who looks at a finished run does not need it
    from secateur.pipelines.check import Checked
    from secateur.pipelines.outcome import Outcome
    from secateur.pipelines.verifying import Verification

GROUPS = (
    Column("group", 0, text=True),
    Column("type", 3, text=True),
    Column("channels", 1),
    Column("may stay", 2, text=True, prose=True),
    Column("parameters", 5),
    Column("MACs", 1),
    Column("methods", 4, text=True, prose=True),
)
WHOLE = (
    Column("group", 0, text=True),
    Column("type", 2, text=True),
    Column("channels", 1),
    Column("reason", 0, text=True, prose=True),
)


VERIFIED = (
    Column("figure", 0, text=True),
    Column("registered", 0),
    Column("now", 0),
    Column("", 0, text=True),
)


def show_outcome(outcome: Outcome) -> None:
    """The table, where the report lies, and how to load what was registered."""
    out = console()
    _tables(out, outcome.record)
    _summary(out, outcome.record)
    _where(out, outcome.report, outcome.versions)


def show_run(run: RunFolder, *, as_json: bool) -> None:
    """A run's table."""
    record = read_record(run)
    if as_json:
        sys.stdout.write((run.path / "record.json").read_text(encoding="utf-8") + "\n")
        return
    out = console()
    say(out, f"{record.name}, run {record.run_id}, measured on {record.device}")
    _tables(out, record)
    _summary(out, record)
    _where(out, run.path / "report.html", versions_of(run))


def _tables(out: Console, record: RunRecord) -> None:
    """The networks before and after, and the gate where there was one."""
    show_table(out, before_and_after(record))
    if (gate := gate_table(record)) is not None:
        say(out, "")
        show_table(out, gate, "The gate")


def _where(out: Console, report: Path, versions: Sequence[Version] | None) -> None:
    out.print(f"report: {report}", soft_wrap=True, markup=False)  # a path is copied: it must stay in one piece
    for version in versions or ():
        aliases = "".join(f" @{alias}" for alias in version.aliases)
        say(out, f"registered: {version.name} version {version.version} ({version.finalist}){aliases}")


def _summary(out: Console, record: RunRecord) -> None:
    """What came of it, and whether the search's score could be believed."""
    say(out, "")
    say(out, headline(record), "bold")
    for text in uncertain(record):
        say(out, text, "yellow")
    for name, text in audit_facts(record).items():
        say(out, f"{name}: {text}", "dim")


def show_check(checked: Checked, *, as_json: bool) -> None:
    """What a pipeline would do."""
    if as_json:
        sys.stdout.write(json.dumps(checked.plain(), indent=2) + "\n")
        return
    out = console()
    rows = (
        (
            *(g.name, g.layer_type, str(g.width), ", ".join(map(str, g.widths))),
            *(short(g.parameters), short(g.macs), ", ".join(g.methods)),
        )
        for g in checked.groups
    )
    show_table(out, Table(GROUPS, tuple(map(Row, rows))), "Groups that may be cut")
    if checked.excluded:
        whole = ((e.name, e.layer_type, str(e.width), e.reason) for e in checked.excluded)
        say(out, "")
        show_table(out, Table(WHOLE, tuple(map(Row, whole))), "Groups that stay whole")
    say(out, "")
    for name, text in checked.facts.items():
        say(out, f"{name}: {text}")


def show_listing(what: str, entries: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """A registry's entries."""
    if as_json:
        sys.stdout.write(json.dumps(list(entries), indent=2) + "\n")
        return
    show_table(console(), listing(entries, "what"), what)


def show_verification(verification: Verification, *, as_json: bool) -> None:
    """What a registered version claims, beside what was measured now."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(verification), indent=1) + "\n")
        return
    out = console()
    words = {True: "holds", False: "does not hold", None: "not comparable here"}
    rows = (
        Row(
            (figure.name, interval(figure.registered), interval(figure.now), words[figure.holds]),
            passed=figure.holds is not False,
        )
        for figure in verification.figures
    )
    show_table(out, Table(VERIFIED, tuple(rows)), verification.version)
    for note in verification.notes:
        say(out, note, "yellow")


def show_written(files: Sequence[Path]) -> None:
    """Files that were written, one per line."""
    for file in files:
        sys.stdout.write(f"{file}\n")
