"""What the terminal shows while a run goes on: a line for each finished stage, and a bar for the one that is going on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from secateur.cli.bar import Bar, Elapsed, Parts, bar_width, pinned
from secateur.cli.interrupts import Interrupts
from secateur.cli.notes import notes
from secateur.cli.verbosity import SETTINGS
from secateur.cli.verbosity import console as error_console
from secateur.formatting import duration, score, short
from secateur.pipelines.listener import EpochCount, Listener, together
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.records import SHARE, Measurement, Recovered, Trial
from secateur.search.ledger import Ledger

STAGES = {
    "check": "checking definition, data and model",
    "replay": "trying the choice that serves",
    "search": "searching",
    "recover": "fine-tuning the finalists",
    "refit": "refitting the finalists, without training",
    "quantize": "quantizing the finalists to int8",
    "gate": "judging on selection data",
    "register": "registering in MLflow",
}
DONE = {
    "check": "definition, data and model are sound",
    "replay": "tried the choice that serves",
    "search": "searched",
    "recover": "finalists fine-tuned and measured",
    "refit": "finalists refitted and measured",
    "quantize": "finalists quantized and measured",
    "gate": "judged on selection data",
    "register": "registered in MLflow",
}
SHORT = {
    "check": "checking",
    "replay": "trying",
    "search": "searching",
    "recover": "fine-tuning",
    "refit": "refitting",
    "quantize": "quantizing",
    "gate": "judging",
    "register": "registering",
}
"""Beside a bar, where there is little room."""


FORESEEN = 2.0
"""Seconds of a step after which it is said how long it will take."""


@contextlib.contextmanager
def watching() -> Iterator[Listener]:
    """A listener that draws a progress bar on the terminal, or prints a line now and then where there is none."""
    console = error_console()
    live = console.is_terminal and not console.is_dumb_terminal and SETTINGS.level >= 0
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        Bar(bar_width=bar_width(console)),
        Elapsed(),
        Parts(console),
    )
    # Transient: at the end only the lines of finished stages stay.
    bar = Progress(*columns, console=console, disable=not live, transient=True)
    with Interrupts() as interrupts, pinned(console), bar as progress:
        terminal = Terminal(progress, interrupts, live=live)
        yield together(terminal, _Noted())
        terminal.finished()


class _Noted(Listener):
    """Keeps the watching process informed: it says what was going on where native code crashes, and whether to go on."""

    def stage(self, name: str) -> None:
        notes().stage(STAGES[name])

    def prepared(self, prepared: Prepared, run: RunFolder, dense: Mapping[str, Measurement]) -> None:  # noqa: ARG002
        notes().run(run.path)

    def trial(self, ledger: Ledger, trial: Trial) -> None:  # noqa: ARG002 # the interface
        notes().step()

    def epoch(self, finalist: int, finalists: int, epoch: float, loss: float) -> None:  # noqa: ARG002 # the interface
        if epoch == int(epoch):  # within one, nothing need be kept
            notes().step()


class Terminal(Listener):
    """Progress for people. live: a bar is drawn; otherwise (a log file) a line a tenth of the way."""

    def __init__(
        self, progress: Progress, interrupts: Interrupts, *, live: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.progress, self.interrupts, self.live, self.clock = progress, interrupts, live, clock
        self.task: TaskID | None = None
        self.current: str | None = None
        self.began = 0.0
        self.step_began: float | None = None
        self.summary = ""
        self.prepared_: Prepared | None = None
        self.score_unit = SHARE
        self.reported = 0
        self.reasons: set[str] = set()
        self.counts: dict[str, int] = {}

    def stage(self, name: str) -> None:
        """The one before is finished: it leaves a line."""
        self.interrupts.check()
        self.finished()
        self.current, self.began, self.summary = name, self.clock(), ""
        self.count, self.finalists = EpochCount(self._epochs()), 0
        self.task = self.progress.add_task(SHORT[name], total=self._known(name), parts=())
        if not self.live:
            self._print(STAGES[name])

    def finished(self) -> None:
        """Leave a line for the stage that is going on, with what it took, and remove its bar."""
        if self.task is None or self.current is None:
            return
        self.progress.remove_task(self.task)
        if self.live:
            mark = "✓" if self.progress.console.encoding.startswith("utf") else "*"
            took = duration(self.clock() - self.began)
            self._print(f"{mark} {DONE[self.current]}{self.summary}, {took}", "green")
        self.task = self.current = None

    def step(self, text: str, share: float | None = None) -> None:
        """Shown beside the bar, which moves where it is known how far the step is."""
        self.interrupts.check()
        if share is None:
            ended: dict[str, object] = {} if self.step_began is None else {"total": 0}  # rich takes None for unchanged
            self.step_began = None
            self._update(parts=(text,), **ended)
            return
        self.step_began = self.clock() if self.step_began is None else self.step_began
        spent = self.clock() - self.step_began
        left = (f"about {duration(spent / share - spent)} left",) if share and spent >= FORESEEN else ()
        self._update(completed=round(100 * share), total=100, parts=(text, *left))

    def prepared(self, prepared: Prepared, run: RunFolder, dense: Mapping[str, Measurement]) -> None:
        """What is going to be cut."""
        self.prepared_, self.score_unit = prepared, prepared.workload.score_unit
        self._print(
            f"{prepared.definition.name}: {len(prepared.space.choices)} groups, "
            f"{len(prepared.space.parameters())} dimensions, {short(prepared.costs.total)} MACs, dense "
            f"{prepared.workload.score_name} {score(dense['accuracy'].value, self.score_unit)}; run {run.run_id}"
        )

    def trial(self, ledger: Ledger, trial: Trial) -> None:
        """How far the search is, how many failed or were stopped early, and the front."""
        self.interrupts.check()
        assert self.prepared_ is not None  # noqa: S101 # trials come after `prepared`
        if trial.same_as is None:
            self._count(trial)
        total = self.prepared_.definition.search.trials
        lost = [f"{number} {what}" for what, number in self.counts.items()]
        figures = front_figures(ledger.archive.values)
        self.summary = f": {', '.join([f'{ledger.evaluated} networks', *lost, *figures[:1]])}"
        self._update(completed=ledger.evaluated, total=total, parts=(*figures[:1], *lost, *figures[1:]))
        due = ledger.evaluated * 10 // total
        if not self.live and due > self.reported:
            self.reported = due
            self._print(f"  {ledger.evaluated} of {total}: {', '.join((*figures[:1], *lost, *figures[1:]))}")

    def _count(self, trial: Trial) -> None:
        evaluation = trial.evaluation
        if evaluation.failure is not None:
            self.counts["failed"] = self.counts.get("failed", 0) + 1
            if evaluation.failure not in self.reasons:  # each reason once
                self._print(f"  trial {trial.number} failed: {evaluation.failure}", "yellow")
            self.reasons.add(evaluation.failure)
        elif evaluation.stopped is not None:
            self.counts["stopped early"] = self.counts.get("stopped early", 0) + 1

    def experiment(self, url: str) -> None:
        """Where NNI shows its own."""
        self._print(f"  NNI's experiment: {url} (on this machine only)")

    def epoch(self, finalist: int, finalists: int, epoch: float, loss: float) -> None:
        """A unit of the bar, or a part of one; the last epoch of a finalist is followed by its export and measurement."""
        self.interrupts.check()
        self.finalists = finalists
        self.count.told(finalist, epoch)
        doing = "exporting and measuring" if epoch == self.count.of_one else f"loss {loss:.3f}"
        self._recovering(f"finalist {finalist} of {finalists}: {doing}")

    def recovered(self, finalist: Recovered) -> None:
        """A finalist's line, and a unit of the bar for its measurement."""
        self.count.recovered()
        self._recovering()
        if finalist.failure is not None:
            self._print(f"  {finalist.name} failed: {finalist.failure}", "yellow")
            return
        accuracy = finalist.measurements["accuracy"]
        before = finalist.searched.get("accuracy")
        latency = finalist.measurements.get("latency")
        speed = f", {1 / latency.value:.2f}× faster" if latency else ""
        first = (
            "" if before is None else f"{score(before.value, self.score_unit)} → "
        )  # an int8 twin was not in the search
        self._print(f"  {finalist.name}: score {first}{score(accuracy.value, self.score_unit)}{speed}")
        if finalist.stopped:
            self._print(f"    fine-tuning stopped early: {finalist.stopped}", "yellow")

    def _known(self, stage: str) -> int | None:
        """How much a stage has to do, where that is known when it begins."""
        return self.prepared_.definition.search.trials if stage == "search" and self.prepared_ is not None else None

    def _epochs(self) -> int:
        """Of a finalist; 0 where it is trained for minutes, or not at all."""
        recover = self.prepared_.definition.recover if self.prepared_ is not None else None
        if self.prepared_ is None or recover is None:
            return 0
        return recover.passes(len(self.prepared_.workload.data.train)) or 0  # type: ignore[arg-type] # map-style

    def _recovering(self, *parts: str) -> None:
        if self.finalists:
            total = self.finalists * (self.count.of_one + 1)
            self._update(completed=self.count.done + self.count.measured, total=total, parts=parts)

    def _update(self, **fields: object) -> None:
        if self.task is not None:
            self.progress.update(self.task, refresh=True, **fields)  # type: ignore[arg-type] # rich's own keywords

    def _print(self, text: str, style: str = "") -> None:
        if SETTINGS.level >= 0:
            self.progress.console.print(Text(text, style=style), soft_wrap=not self.live)


def front_figures(points: Sequence[Mapping[str, float]]) -> list[str]:
    """How large the front is, and its members' spread in the first three objectives."""
    parts = [f"front {len(points)}"]
    for name in list(points[0])[:3] if points else []:
        values = [point[name] for point in points]
        low, high = (short(v) if abs(v) >= 1000 else f"{v:.2f}" for v in (min(values), max(values)))
        parts.append(f"{name} {low}…{high}")
    return parts
