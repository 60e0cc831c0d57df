"""From a finalist to its figures: train, export, measure. Each part is kept on disk, so that a crash costs one part at most.

finalists/NAME/checkpoint.safetensors    while it is trained, after each epoch
finalists/NAME/step-1/, step-2/, …        where it is cut in several steps, each but the last as below when it is over
finalists/NAME/compressed/, trained.json when that is over
finalists/NAME/model.onnx                exported, once; the gate and the registry take this file
finalists/NAME/result.json               measured
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from pydantic import TypeAdapter

from secateur.compression.gates import gated_blocks
from secateur.compression.storage import save_compressed, stored
from secateur.definition import LocalDevice
from secateur.errors import DataUnreadable, EvaluationFailed, ModelError, WorkloadError
from secateur.evaluators import Network
from secateur.evaluators.measuring import STREAM_SAMPLES
from secateur.evaluators.metrics import latency_in
from secateur.evaluators.on_device import Answer
from secateur.evaluators.sample_scores import save_scores
from secateur.execution import Pool
from secateur.files import write
from secateur.gating import closings, file_on_path, module_on_path, prices_of
from secateur.gating.placing import decisions
from secateur.pipelines.exporting import export_into, patterns_in, stored_network
from secateur.pipelines.finalists import Finalist
from secateur.pipelines.judgement import scores_file
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.side_by_side import Training, at_once, threads_of, trained
from secateur.pipelines.state import RunFolder, Stopwatch
from secateur.pipelines.tuning import OnEpoch, Tuning
from secateur.records import CompressedModel, GatePath, Recovered, earlier
from secateur.recovery.fine_tune import Tuned
from secateur.recovery.trainers import TRAINING
from secateur.workloads.roles import collect

_RECOVERED: TypeAdapter[Recovered] = TypeAdapter(Recovered)

OWN_FAULTS = (EvaluationFailed, ModelError, WorkloadError)
"""What is one finalist's failure: it does not export, or the user's loss, score or metric raises over it. The others go on."""

_Asked = tuple[Answer | None, tuple[GatePath, ...]]
"""What a device has said of a network, and of its single paths."""

ROLE = "selection"
"""The data role that finalists are measured on."""


@dataclass(frozen=True)
class Recovery:
    """Tunes and measures the finalists of a run. device: what they are trained on. watch: is told the seconds of each part.

    step: is told what begins. pool: where several are trained side by side; it is closed when nothing is left to be trained there.
    """

    prepared: Prepared
    run: RunFolder
    device: str
    watch: Stopwatch
    step: Callable[[str], None] = lambda _: None
    pool: Pool | None = None

    @cached_property
    def _tuning(self) -> Tuning:
        return Tuning(self.prepared, self.device)

    def recovered(self, finalists: Sequence[Finalist], on_epoch: Callable[[int], OnEpoch]) -> Iterator[Recovered]:
        """Train, export and measure finalists; each is given out, in order, when it is done.

        on_epoch: what is told, by number from 1. Another machine measures one while others are trained here; this host begins to
        measure when none is being trained and no process of the pool is left.
        """
        begun: deque[Callable[[], Recovered]] = deque()
        with self._beside() as beside:
            ready = self._trained_by_pool(finalists, on_epoch, all_first=beside is None)
            for number, finalist in enumerate(ready, start=1):
                begun.append(self._begun(finalist, on_epoch(number), beside))
                if beside is None or len(begun) > 1:
                    yield begun.popleft()()
            while begun:
                yield begun.popleft()()

    def _trained_by_pool(
        self, finalists: Sequence[Finalist], on_epoch: Callable[[int], OnEpoch], *, all_first: bool
    ) -> Iterator[Finalist]:
        """Finalists in order, each when it has been trained where that is for the pool. all_first: when all have.

        On a GPU they are trained one at a time, in this process.
        """
        together = min(len(finalists), self.pool.workers) if self.pool is not None and self.device == "cpu" else 1
        trainings = [
            Training(self._empty(finalist), on_epoch(number))
            for number, finalist in enumerate(finalists, start=1)
            if together > 1
            and finalist.settings is not None
            and self.done(finalist.name) is None
            and not self._is_trained(self._folder(finalist))
        ]
        left = {training.finalist.name for training in trainings}
        if self.pool is None or not left:
            if self.pool is not None:
                self.pool.close()
            yield from finalists
            return
        fitting = at_once(self.prepared, together)
        self.step(f"{fitting} finalists at a time")
        ended = trained(self.pool, trainings, fitting, threads_of(together))
        for finalist in finalists:
            while left and (all_first or finalist.name in left):
                with self.watch.stage("recover.training"):
                    recovered, failure = next(ended)
                left.remove(recovered.name)
                if failure is not None:
                    self._failed(recovered, failure)
                if not left:
                    self.pool.close()
            yield finalist

    @contextlib.contextmanager
    def _beside(self) -> Iterator[Executor | None]:
        """A thread in which the device is asked; None on this host, where training would disturb what is measured.

        The samples that a device scores are read from the user's data set, which two threads may not be able to read at a time.
        """
        evaluator = self.prepared.definition.evaluator
        if isinstance(evaluator.device, LocalDevice) or evaluator.device_samples:
            yield None
            return
        thread = ThreadPoolExecutor(1)
        try:
            yield thread
        finally:
            thread.shutdown(cancel_futures=True)

    def _begun(self, finalist: Finalist, on_epoch: OnEpoch, beside: Executor | None) -> Callable[[], Recovered]:
        """A finalist that is trained and exported. Returns what remains: its figures, or what it failed of, kept for good."""
        if (done := self.done(finalist.name)) is not None:
            return lambda: done
        recovered = self._empty(finalist)
        try:
            recovered, compressed = self._trained(finalist, on_epoch)
            network = self._exported(finalist, compressed)
            patterns = patterns_in(network.onnx, finalist.candidate, self.prepared.space.groups)
            recovered = replace(recovered, patterns=patterns)
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            return partial(self._failed, recovered, str(error))
        self.step(f"measuring {finalist.name}")
        asked = None if beside is None else beside.submit(self._asked, network)
        return lambda: self.kept(self.measured(recovered, network, asked))

    def train(self, finalist: Finalist, on_epoch: OnEpoch) -> str | None:
        """Train a finalist, into its folder. Returns what it failed of, or None. Raises DataUnreadable and StateError."""
        try:
            self._trained(finalist, on_epoch)
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            return str(error)
        return None

    def done(self, name: str) -> Recovered | None:
        """What became of a finalist, where that is on disk."""
        file = self.run.folder("finalists", name) / "result.json"
        return _read(file) if file.is_file() else None

    def _failed(self, recovered: Recovered, reason: str) -> Recovered:
        """What a finalist failed of, on disk for good; its training will not go on."""
        folder = self.run.path / recovered.folder
        for file in folder.rglob("checkpoint.safetensors"):
            file.unlink()
        for own in folder.rglob(TRAINING):
            shutil.rmtree(own, ignore_errors=True)
        return self.kept(replace(recovered, failure=reason))

    def kept(self, recovered: Recovered) -> Recovered:
        """What became of a finalist, on disk for good."""
        write(self.run.path / recovered.folder / "result.json", _RECOVERED.dump_json(recovered, indent=1))
        return recovered

    def _trained(self, finalist: Finalist, on_epoch: OnEpoch) -> tuple[Recovered, CompressedModel]:
        """A finalist without figures, and its tuned network. What was begun goes on, step by step."""
        steps = finalist.settings.steps if finalist.settings else 1
        folders = [*(self._folder(finalist) / f"step-{step}" for step in range(1, steps)), self._folder(finalist)]
        before: CompressedModel | None = None
        recovered = self._empty(finalist)
        for step, folder in enumerate(folders, start=1):
            if self._is_trained(folder):
                recovered = _read(folder / "trained.json")
                before = stored(folder / "compressed", self.prepared.model)
                continue
            done, taken = recovered.epochs, recovered.steps

            def told(epoch: float, loss: float, done: int = done) -> None:
                on_epoch(done + epoch, loss)

            before, tuned = self._step(finalist, step, before, folder / "checkpoint.safetensors", told)
            recovered = replace(
                recovered,
                epochs=done + tuned.epochs,
                seconds=recovered.seconds + tuned.seconds,
                stopped=recovered.stopped or tuned.stopped,
                losses=(*recovered.losses, *tuned.losses),
                curve=(*recovered.curve, *((taken + at, loss) for at, loss in tuned.curve)),
                scores=(*recovered.scores, *((taken + at, score) for at, score in tuned.scores)),
            )
            save_compressed(
                before, self.prepared.model, self.prepared.definition.workload.as_written, folder / "compressed"
            )
            write(folder / "trained.json", _RECOVERED.dump_json(recovered, indent=1))
            (folder / "checkpoint.safetensors").unlink(missing_ok=True)
            shutil.rmtree(folder / TRAINING, ignore_errors=True)  # of a trainer of the user's own
        assert before is not None  # noqa: S101 # there is one step at least
        return recovered, before

    def _step(
        self, finalist: Finalist, step: int, before: CompressedModel | None, checkpoint: Path, on_epoch: OnEpoch
    ) -> tuple[CompressedModel, Tuned]:
        with self.watch.stage("recover.refitting"):
            network = self._tuning.begun(finalist, step, before)
        if finalist.settings is None:
            return network, Tuned(network.module, 0, 0.0, None)
        with self.watch.stage("recover.training"):
            return self._tuning.trained(network, finalist.settings, finalist.candidate, checkpoint, on_epoch)

    def measured(self, recovered: Recovered, network: Network, asked: Future[_Asked] | None = None) -> Recovered:
        """A network as it ships with its figures on selection data and its score on the search data once more, or with its failure.

        asked: what the device says of it, where it is asked already.
        """
        evaluator = self.prepared.evaluator
        try:
            with self._measuring():
                answer, paths = (None, self._paths(network)) if asked is None else asked.result()
                measured = evaluator.score(network, ROLE, evaluator.everything, answer)
                on_search = evaluator.measure(network, "search", ["accuracy"])["accuracy"]
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            return replace(recovered, failure=str(error))
        save_scores(measured.scores, scores_file(self.run.path / recovered.folder, ROLE))
        return replace(recovered, measurements=measured.measurements, on_search=on_search, paths=paths)

    def _asked(self, network: Network) -> _Asked:
        """All that the device says of a network."""
        evaluator = self.prepared.evaluator
        return evaluator.ask(network, ROLE, evaluator.everything), self._paths(network)

    def _paths(self, network: Network) -> tuple[GatePath, ...]:
        """What single paths through a network with gates take."""
        if not gated_blocks(network.module):
            return ()
        evaluator, prices = self.prepared.evaluator, prices_of(network.module, self.prepared.workload.example_inputs)
        timed = "latency" in evaluator.everything

        def taken(closed: tuple[str, ...]) -> GatePath:
            macs = prices.of(prices.blocks.keys() - set(closed))
            if not timed:
                return GatePath(closed, macs)
            fixed = Network(module_on_path(network.module, closed), file_on_path(network.onnx, prices, closed), macs)
            return GatePath(closed, macs, latency_in(evaluator.ask(fixed, ROLE, ["latency"])))

        return tuple(map(taken, closings(prices)))

    def _empty(self, finalist: Finalist) -> Recovered:
        """A finalist of which nothing is known yet."""
        return Recovered(
            name=finalist.name,
            trial=finalist.trial,
            candidate=finalist.candidate,
            searched=finalist.searched,
            measurements={},
            folder=str(self._folder(finalist).relative_to(self.run.path)),
            epochs=0,
            seconds=0.0,
        )

    def _exported(self, finalist: Finalist, compressed: CompressedModel) -> Network:
        folder, macs = self._folder(finalist), self._macs(compressed)
        self.step(f"exporting {finalist.name}")
        with self.watch.stage("recover.export"):
            stored = stored_network(self.prepared, folder, compressed.module, macs)
            return stored or export_into(self.prepared, folder, compressed.module, macs)

    def _macs(self, compressed: CompressedModel) -> int:
        """For one sample; where gates decide, for an average one of those that latency is measured on."""
        if not compressed.plan.gates:
            return self.prepared.costs.after(compressed.plan)
        inputs, _ = collect(self.prepared.workload.data.calibration, STREAM_SAMPLES)
        prices = prices_of(compressed.module, self.prepared.workload.example_inputs)
        return round(prices.average(decisions(compressed.module, inputs)))

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """The time inside is measuring, but for what was spent on waiting for a quiet device. Time beside training is neither."""
        waiting, started = self.prepared.evaluator.waiting, time.monotonic()
        before = waiting.spent
        try:
            yield
        finally:
            waited = waiting.spent - before
            self.watch.add("recover.measuring", max(0.0, time.monotonic() - started - waited))
            self.watch.add("recover.waiting", waited)

    @staticmethod
    def _is_trained(folder: Path) -> bool:
        """Whether a training into a folder is over."""
        return (folder / "trained.json").is_file()

    def _folder(self, finalist: Finalist) -> Path:
        return self.run.folder("finalists", finalist.name)


def _read(file: Path) -> Recovered:
    return _RECOVERED.validate_python(earlier.finalist(json.loads(file.read_bytes())))
