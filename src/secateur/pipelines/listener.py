"""What a run says while it goes on, to whoever listens: the terminal, the log, a user's own callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secateur.records import Measurement, Recovered, Trial

if TYPE_CHECKING:
    from secateur.pipelines.preparation import Prepared
    from secateur.pipelines.state import RunFolder
    from secateur.search.ledger import Ledger

_LOGGER = logging.getLogger("secateur")


class Listener:
    """Progress callbacks; the defaults do nothing. What a method raises ends the run, which can be resumed."""

    def stage(self, name: str) -> None:
        """A stage begins: check, replay, search, recover (refit, where nothing is trained), quantize, gate or register."""

    def step(self, text: str, share: float | None = None) -> None:
        """A step of the stage, as people call it, for steps that take seconds: it begins, or a share of it is done."""

    def prepared(self, prepared: Prepared, run: RunFolder, dense: Mapping[str, Measurement]) -> None:
        """Checks are done and the dense model has been measured."""

    def trial(self, ledger: Ledger, trial: Trial) -> None:
        """A trial has been recorded."""

    def experiment(self, url: str) -> None:
        """An NNI experiment has started; url: of its web interface, on this machine only."""

    def epoch(self, finalist: int, finalists: int, epoch: float, loss: float) -> None:
        """An epoch of one finalist is over, or where it takes long a part of it: 1.25 is a quarter of the second."""

    def recovered(self, finalist: Recovered) -> None:
        """A finalist is tuned and measured."""


class _Together(Listener):
    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def stage(self, name: str) -> None:
        for listener in self._listeners:
            listener.stage(name)

    def step(self, text: str, share: float | None = None) -> None:
        for listener in self._listeners:
            listener.step(text, share)

    def prepared(self, prepared: Prepared, run: RunFolder, dense: Mapping[str, Measurement]) -> None:
        for listener in self._listeners:
            listener.prepared(prepared, run, dense)

    def trial(self, ledger: Ledger, trial: Trial) -> None:
        for listener in self._listeners:
            listener.trial(ledger, trial)

    def experiment(self, url: str) -> None:
        for listener in self._listeners:
            listener.experiment(url)

    def epoch(self, finalist: int, finalists: int, epoch: float, loss: float) -> None:
        for listener in self._listeners:
            listener.epoch(finalist, finalists, epoch, loss)

    def recovered(self, finalist: Recovered) -> None:
        for listener in self._listeners:
            listener.recovered(finalist)


def together(*listeners: Listener) -> Listener:
    """Several listeners as one, called in their order."""
    return _Together(listeners)


@dataclass
class EpochCount:
    """Epochs of all finalists, which may be trained side by side. of_one: that each is to have. measured: finalists."""

    of_one: int
    measured: int = 0
    by_finalist: dict[int, float] = field(default_factory=dict)

    def told(self, finalist: int, epoch: float) -> None:
        """An epoch, or a part of one. finalist: from 1."""
        self.by_finalist[finalist] = min(epoch, self.of_one)

    def recovered(self) -> None:
        """The next finalist is done: it may have stopped early, or have been trained by an earlier process."""
        self.measured += 1
        self.by_finalist[self.measured] = self.of_one

    @property
    def done(self) -> float:
        """Epochs up to now."""
        return sum(self.by_finalist.values())


@dataclass(frozen=True)
class Progress:
    """Where a run is. done, total: trials, epochs of all finalists, or per cent of a step, None where unknown. text: for people."""

    stage: str
    text: str
    done: int | None = None
    total: int | None = None


class _Reporting(Listener):
    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function
        self._stage = "check"
        self._trials = 1
        self._epochs: int | None = 1
        self._count = EpochCount(1)

    def stage(self, name: str) -> None:
        self._stage, self._count = name, EpochCount(self._epochs or 0)
        self._say("begins")

    def step(self, text: str, share: float | None = None) -> None:
        self._say(text, *(() if share is None else (round(100 * share), 100)))

    def prepared(self, prepared: Prepared, run: RunFolder, dense: Mapping[str, Measurement]) -> None:  # noqa: ARG002 # the interface
        self._trials = prepared.definition.search.trials
        if prepared.definition.recover is not None:
            self._epochs = prepared.definition.recover.passes(len(prepared.workload.data.train))  # type: ignore[arg-type] # map-style
        groups = len(prepared.space.choices)
        self._say(f"{prepared.definition.name}: {groups} groups, run {run.run_id} in {run.path}")

    def trial(self, ledger: Ledger, trial: Trial) -> None:
        evaluation = trial.evaluation
        figures = ", ".join(f"{name} {m.value:.4g}" for name, m in evaluation.measurements.items())
        what = evaluation.failure or evaluation.stopped or figures
        self._say(f"trial {trial.number} ({trial.arm}): {what}", ledger.evaluated, self._trials)

    def experiment(self, url: str) -> None:
        self._say(f"NNI's experiment: {url}")

    def epoch(self, finalist: int, finalists: int, epoch: float, loss: float) -> None:
        self._count.told(finalist, int(epoch))
        counted = () if self._epochs is None else (int(self._count.done), finalists * self._epochs)
        self._say(f"finalist {finalist} of {finalists}, epoch {epoch:.3g}: loss {loss:.4g}", *counted)

    def recovered(self, finalist: Recovered) -> None:
        self._count.recovered()
        figures = ", ".join(f"{name} {m.value:.4g}" for name, m in finalist.measurements.items())
        self._say(f"{finalist.name}: {finalist.failure or figures}")

    def _say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        self._function(Progress(self._stage, text, done, total))


def reporting(function: Callable[[Progress], object]) -> Listener:
    """A listener that calls a function at each stage, trial, epoch and finalist: the simple way to listen."""
    return _Reporting(function)


def logged(progress: Progress) -> None:
    """A callback that writes to the log: single epochs and trials too, since a log is read when something went wrong."""
    count = "" if progress.done is None else f" ({progress.done} of {progress.total})"
    _LOGGER.info("%s: %s%s", progress.stage, progress.text, count)
