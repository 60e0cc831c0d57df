"""What the terminal shows: progress while a run goes on, tables afterwards."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from secateur.cli.interrupts import Interrupts
from secateur.cli.verbosity import SETTINGS
from secateur.cli.verbosity import console as error_console
from secateur.pipelines.check import Checked
from secateur.pipelines.listener import Listener
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.run import Outcome, read_record, versions_of
from secateur.pipelines.state import RunFolder
from secateur.records import SHARE, Measurement, Recovered, RunRecord, Trial, Version
from secateur.report import before_and_after, headline
from secateur.report.audit import audit_facts
from secateur.report.units import score, short
from secateur.search.ledger import Ledger

STAGES = {
    "check": "checking definition, data and model",
    "search": "searching",
    "recover": "fine-tuning the finalists",
    "gate": "judging on selection data",
    "register": "registering in MLflow",
}


@contextlib.contextmanager
def watching() -> Iterator[Listener]:
    """A listener that draws progress bars on the terminal, or prints a line now and then where there is none."""
    console = error_console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="cyan"),
    )
    with (
        Interrupts() as interrupts,
        Progress(*columns, console=console, disable=not console.is_terminal or SETTINGS.level < 0) as progress,
    ):
        yield _Terminal(progress, console, interrupts)


class _Terminal(Listener):
    """Progress for people. Off a terminal (a log file) it says a tenth as much."""

    def __init__(self, progress: Progress, console: Console, interrupts: Interrupts) -> None:
        self.progress, self.console, self.interrupts = progress, console, interrupts
        self.task: TaskID | None = None
        self.prepared_: Prepared | None = None
        self.dense: Mapping[str, Measurement] = {}
        self.score_unit = SHARE
        self.said = 0

    def stage(self, name: str) -> None:
        self.interrupts.check()
        if self.task is not None:
            self.progress.update(self.task, visible=False)
        self.task = self.progress.add_task(STAGES[name], total=None, figures="")
        if not self.console.is_terminal:
            self._print(STAGES[name])

    def prepared(self, prepared: Prepared, run: RunFolder, dense: Mapping[str, Measurement]) -> None:
        self.prepared_, self.dense, self.score_unit = prepared, dense, prepared.workload.score_unit
        accuracy = dense["accuracy"]
        self._print(
            f"[bold]{prepared.definition.name}[/]: {len(prepared.space.choices)} groups, "
            f"{len(prepared.space.parameters())} dimensions, {short(prepared.costs.total)} MACs, dense "
            f"{prepared.workload.score_name} {score(accuracy.value, self.score_unit)}; run [bold]{run.run_id}[/]"
        )

    def trial(self, ledger: Ledger, trial: Trial) -> None:  # noqa: ARG002 # the interface
        self.interrupts.check()
        assert self.prepared_ is not None and self.task is not None  # noqa: S101, PT018 # trials come after `prepared`
        definition = self.prepared_.definition
        figures = _front_figures(ledger.archive.values)
        self.progress.update(
            self.task, completed=ledger.evaluated, total=definition.search.trials, figures=figures, refresh=True
        )
        due = ledger.evaluated * 10 // definition.search.trials
        if not self.console.is_terminal and due > self.said:
            self.said = due
            self._print(f"  {ledger.evaluated} of {definition.search.trials}: {figures}")

    def experiment(self, url: str) -> None:
        self._print(f"  NNI's experiment: {url} (on this machine only)")

    def epoch(self, finalist: int, finalists: int, epoch: int, loss: float) -> None:
        self.interrupts.check()
        assert self.prepared_ is not None and self.task is not None  # noqa: S101, PT018 # epochs come after `prepared`
        recover = self.prepared_.definition.recover
        epochs = recover.epochs if recover else 1
        self.progress.update(
            self.task,
            completed=(finalist - 1) * epochs + epoch,
            total=finalists * epochs,
            figures=f"finalist {finalist} of {finalists}, loss {loss:.3f}",
            refresh=True,
        )

    def recovered(self, finalist: Recovered) -> None:
        if finalist.failure is not None:
            self._print(f"  {finalist.name} failed: {finalist.failure}")
            return
        accuracy, before = finalist.measurements["accuracy"], finalist.searched["accuracy"]
        speed = (
            f", {1 / finalist.measurements['latency'].value:.2f}× faster" if "latency" in finalist.measurements else ""
        )
        scores = f"{score(before.value, self.score_unit)} → {score(accuracy.value, self.score_unit)}"
        self._print(f"  {finalist.name}: score {scores}{speed}")
        if finalist.stopped:
            self._print(f"    stopped early: {finalist.stopped}")

    def _print(self, text: str) -> None:
        if SETTINGS.level >= 0:
            self.progress.console.print(text, highlight=False, soft_wrap=True)


def _front_figures(points: Sequence[Mapping[str, float]]) -> str:
    """How large the front is, and its members' spread in the first three objectives."""
    parts = [f"front {len(points)}"]
    for name in list(points[0])[:3] if points else []:
        values = [point[name] for point in points]
        low, high = (short(v) if abs(v) >= 1000 else f"{v:.2f}" for v in (min(values), max(values)))
        parts.append(f"{name} {low}…{high}")
    return ", ".join(parts)


def show_outcome(outcome: Outcome) -> None:
    """The table, where the report lies, and how to load what was registered."""
    console = _wide()
    console.print(_table(outcome.record))
    _summary(console, outcome.record)
    console.print(f"report: {outcome.report}", highlight=False, soft_wrap=True)
    _versions(console, outcome.versions)


def show_run(run: RunFolder, *, as_json: bool) -> None:
    """A run's table."""
    record = read_record(run)
    if as_json:
        sys.stdout.write((run.path / "record.json").read_text(encoding="utf-8") + "\n")
        return
    console = _wide()
    console.print(
        f"[bold]{record.name}[/], run {record.run_id}, measured on {record.device}", highlight=False, soft_wrap=True
    )
    console.print(_table(record))
    _summary(console, record)
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
    _versions(console, versions_of(run))


def _versions(console: Console, versions: Sequence[Version] | None) -> None:
    for version in versions or ():
        aliases = "".join(f" @{alias}" for alias in version.aliases)
        console.print(
            f"registered: {version.name} version {version.version} ({version.finalist}){aliases}", highlight=False
        )


def _summary(console: Console, record: RunRecord) -> None:
    """What came of it, and whether the search's score could be believed."""
    console.print(headline(record), highlight=False, soft_wrap=True)
    for name, text in audit_facts(record).items():
        console.print(f"{name}: {text}", highlight=False, soft_wrap=True, style="dim")


def _wide() -> Console:
    """A console that keeps tables whole in a log file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _table(record: RunRecord) -> Table:
    content = before_and_after(record)
    table = Table(header_style="bold")
    for column in content.columns:
        table.add_column(column.heading, justify="left" if column.text else "right", overflow="fold")
    for row in content.rows:
        table.add_row(*row.cells, style="bold green" if row.best else ("" if row.passed else "dim"))
    return table


def show_check(checked: Checked, *, as_json: bool) -> None:
    """What a pipeline would do."""
    if as_json:
        sys.stdout.write(json.dumps(checked.plain(), indent=2) + "\n")
        return
    console = _wide()
    table = Table(title="Groups that may be cut", title_justify="left", header_style="bold")
    for heading in ("group", "type", "channels", "may stay", "parameters", "MACs", "methods"):
        table.add_column(heading, overflow="fold")
    for group in checked.groups:
        widths = ", ".join(map(str, group.widths))
        table.add_row(
            group.name,
            group.layer_type,
            str(group.width),
            widths,
            short(group.parameters),
            short(group.macs),
            ", ".join(group.methods),
        )
    console.print(table)
    if checked.excluded:
        table = Table(title="Groups that stay whole", title_justify="left", header_style="bold")
        for heading in ("group", "type", "channels", "reason"):
            table.add_column(heading, overflow="fold")
        for excluded in checked.excluded:
            table.add_row(excluded.name, excluded.layer_type, str(excluded.width), excluded.reason)
        console.print(table)
    for name, text in checked.facts.items():
        console.print(f"[bold]{name}[/]: {text}", highlight=False, soft_wrap=True)


def show_listing(what: str, entries: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """A registry's entries."""
    if as_json:
        sys.stdout.write(json.dumps(list(entries), indent=2) + "\n")
        return
    table = Table(title=what, title_justify="left", header_style="bold")
    for heading in entries[0]:
        table.add_column(heading, overflow="fold")
    for entry in entries:
        table.add_row(*entry.values())
    _wide().print(table)


def show_written(files: Sequence[Path]) -> None:
    """Files that were written, one per line."""
    for file in files:
        sys.stdout.write(f"{file}\n")
