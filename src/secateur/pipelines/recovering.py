"""From a finalist to its figures: train, export, measure. Each part is kept on disk, so that a crash costs one part at most.

finalists/NAME/checkpoint.safetensors    while it is trained, after each epoch
finalists/NAME/compressed/, trained.json when that is over
finalists/NAME/model.onnx                exported, once; the gate and the registry take this file
finalists/NAME/result.json               measured
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import nn

from secateur.compression.masks import keep_zero, zeros_in
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.compression.storage import load_compressed, save_compressed
from secateur.definition import LocalDevice, RecoverDefinition
from secateur.errors import DataUnreadable, EvaluationFailed, ModelError, WorkloadError
from secateur.evaluators import Network
from secateur.evaluators.on_device import Answer
from secateur.evaluators.sample_scores import save_scores
from secateur.files import write
from secateur.pipelines.exporting import export_into, stored_network
from secateur.pipelines.judgement import scores_file
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder, Stopwatch
from secateur.records import Candidate, CompressedModel, Measurement, Plan, Recovered, Trial, earlier
from secateur.recovery.fine_tune import Training, Tuned, fine_tune

_RECOVERED: TypeAdapter[Recovered] = TypeAdapter(Recovered)

OWN_FAULTS = (EvaluationFailed, ModelError, WorkloadError)
"""What is one finalist's failure: it does not export, or the user's loss, score or metric raises over it. The others go on."""

ROLE = "selection"
"""The data role that finalists are measured on."""
OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True)
class Finalist:
    """A network that is to be tuned.

    name: also of its folder. trial: whose widths it has. searched: its figures in the search, if any. settings: of training,
    None for none. untuned: builds the network that training starts from.
    """

    name: str
    trial: int
    candidate: Candidate
    plan: Plan
    searched: Mapping[str, Measurement]
    settings: RecoverDefinition | None
    untuned: Callable[[], nn.Module]


def finalist_of(prepared: Prepared, saliencies: Saliencies, trial: Trial, number: int) -> Finalist:
    """A trial of the search that goes on. number: among the finalists, from 1.

    Training starts from the network of the search. One that is not trained is refined: a better network as it is, but a worse one
    to train, since its batch norms, in training mode, see other statistics than the refit went by (`benchmarks/compensation.py`).
    """
    candidate, evaluator = trial.evaluation.candidate, prepared.evaluator
    plan = resolve(candidate, prepared.space.groups, saliencies)

    def untuned() -> nn.Module:
        if prepared.definition.recover is None:
            return evaluator.refined(plan)
        return evaluator.compress(candidate, plan).module

    return Finalist(
        f"f{number}-{trial.evaluation.plan_key[:6]}",
        trial.number,
        candidate,
        plan,
        trial.evaluation.measurements,
        prepared.definition.recover,
        untuned,
    )


def small_dense_of(prepared: Prepared, saliencies: Saliencies, knee: Recovered) -> Finalist:
    """The baseline that needs no pruning: the knee's widths with new weights, trained just as the finalists are.

    Source: Liu et al. 2019 (Rethinking the value of network pruning), arXiv:1810.05270.
    """
    plan = resolve(knee.candidate, prepared.space.groups, saliencies)

    def untuned() -> nn.Module:
        fresh = apply(prepared.model, plan)
        masked = zeros_in(fresh, plan.masked)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(prepared.definition.search.seed)
            for layer in fresh.modules():
                renew = getattr(layer, "reset_parameters", None)
                if callable(renew):
                    renew()
        keep_zero(masked)
        return fresh

    settings = prepared.definition.recover or RecoverDefinition()
    return Finalist("small-dense", knee.trial, knee.candidate, plan, {}, settings, untuned)


@dataclass(frozen=True)
class Recovery:
    """Tunes and measures the finalists of a run. device: what they are trained on. watch: is told the seconds of each part.

    step: is told what begins.
    """

    prepared: Prepared
    run: RunFolder
    device: str
    watch: Stopwatch
    step: Callable[[str], None] = lambda _: None

    def recovered(self, finalists: Sequence[Finalist], on_epoch: Callable[[int], OnEpoch]) -> Iterator[Recovered]:
        """Train, export and measure finalists; each is given out, in order, when it is done.

        on_epoch: what is told, by number from 1. Another machine measures one while the next is trained here.
        """
        begun: deque[Callable[[], Recovered]] = deque()
        with self._beside() as beside:
            for number, finalist in enumerate(finalists, start=1):
                begun.append(self._begun(finalist, on_epoch(number), beside))
                if beside is None or len(begun) > 1:
                    yield begun.popleft()()
            while begun:
                yield begun.popleft()()

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
        done = self._folder(finalist) / "result.json"
        if done.is_file():
            return partial(_read, done)
        recovered, evaluator = self._empty(finalist), self.prepared.evaluator
        try:
            recovered, module = self._trained(finalist, on_epoch)
            network = self._exported(finalist, module)
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            (self._folder(finalist) / "checkpoint.safetensors").unlink(missing_ok=True)
            return partial(self._kept, finalist, replace(recovered, failure=str(error)))
        self.step(f"measuring {finalist.name}")
        asked = None if beside is None else beside.submit(evaluator.ask, network, ROLE, evaluator.everything)
        return lambda: self._kept(finalist, self._measured(finalist, recovered, network, asked))

    def _kept(self, finalist: Finalist, recovered: Recovered) -> Recovered:
        write(self._folder(finalist) / "result.json", _RECOVERED.dump_json(recovered, indent=1))
        return recovered

    def _trained(self, finalist: Finalist, on_epoch: OnEpoch) -> tuple[Recovered, nn.Module]:
        """A finalist without figures, and its tuned module. A training that was begun goes on."""
        folder = self._folder(finalist)
        done, checkpoint = folder / "trained.json", folder / "checkpoint.safetensors"
        if done.is_file():
            return _read(done), load_compressed(folder / "compressed", self.prepared.model)
        definition = self.prepared.definition
        with self.watch.stage("recover.refitting"):
            module = finalist.untuned()
        tuned = Tuned(module, 0, 0.0, None)
        if finalist.settings is not None:
            training = Training(self.device, definition.search.seed, checkpoint, on_epoch, finalist.plan.masked)
            with self.watch.stage("recover.training"):
                tuned = fine_tune(module, self.prepared.model, self.prepared.workload, finalist.settings, training)
        recovered = replace(
            self._empty(finalist),
            epochs=tuned.epochs,
            seconds=tuned.seconds,
            stopped=tuned.stopped,
            losses=tuned.losses,
        )
        compressed = CompressedModel(finalist.candidate, finalist.plan, tuned.module)
        save_compressed(compressed, self.prepared.model, definition.workload.as_written, folder / "compressed")
        write(done, _RECOVERED.dump_json(recovered, indent=1))
        checkpoint.unlink(missing_ok=True)
        return recovered, tuned.module

    def _measured(
        self, finalist: Finalist, recovered: Recovered, network: Network, asked: Future[Answer | None] | None
    ) -> Recovered:
        """A tuned network with its figures on selection data and its score on the search data once more, or with its failure.

        asked: what the device says of it, where it is asked already.
        """
        evaluator = self.prepared.evaluator
        try:
            with self._measuring():
                answer = None if asked is None else asked.result()
                measured = evaluator.score(network, ROLE, evaluator.everything, answer)
                on_search = evaluator.measure(network, "search", ["accuracy"])["accuracy"]
        except DataUnreadable:
            raise
        except OWN_FAULTS as error:
            return replace(recovered, failure=str(error))
        save_scores(measured.scores, scores_file(self._folder(finalist), ROLE))
        return replace(recovered, measurements=measured.measurements, on_search=on_search)

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

    def _exported(self, finalist: Finalist, module: nn.Module) -> Network:
        folder, macs = self._folder(finalist), self.prepared.costs.after(finalist.plan)
        self.step(f"exporting {finalist.name}")
        with self.watch.stage("recover.export"):
            stored = stored_network(self.prepared, folder, module, macs)
            return stored or export_into(self.prepared, folder, module, macs)

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

    def _folder(self, finalist: Finalist) -> Path:
        return self.run.folder("finalists", finalist.name)


def _read(file: Path) -> Recovered:
    return _RECOVERED.validate_python(earlier.finalist(json.loads(file.read_bytes())))
