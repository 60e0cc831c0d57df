"""One candidate from choice to figures: cut it, recalibrate, make its file, measure it on the device, score it.

Scores come from the runtime on this host, costs from the device. The rewritten file (instead of an export) and recalibration on
64 images keep a candidate's own cost near that of a bare forward pass of the same images; `benchmarks/candidate_cost.py` has the
figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.agent.latency import Protocol
from secateur.agent.runtimes import RUNTIMES
from secateur.compression.batch_norm import DenseStatistics, dense_statistics, recalibrate
from secateur.compression.costs import LayerCosts, parameter_count
from secateur.compression.saliency import Saliencies
from secateur.compression.selection import resolve
from secateur.compression.surgery import cut
from secateur.definition import EvaluatorDefinition
from secateur.errors import DataUnreadable, EvaluationFailed, WorkloadError, first_line
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.report import Report
from secateur.evaluators.metrics import METRICS, Context, Metric, measure_all, relative_error
from secateur.evaluators.model_files import ModelFiles, Network
from secateur.evaluators.on_device import FIGURES, SAMPLED, Answer, OnDevice, Sample
from secateur.evaluators.prediction import Predictor
from secateur.evaluators.racing import Race
from secateur.evaluators.runtimes import HostSession, host_for
from secateur.evaluators.sample_scores import Scores, scores_of
from secateur.evaluators.waiting import FINALIST, WaitingBudget
from secateur.records import Candidate, CompressedModel, Evaluation, Group, Job, Measurement, Removals, Workload
from secateur.workloads.roles import collect, drawn

TIMED_BATCHES = 4
"""Different batches that latency is measured on, taken in turn."""
SEARCH = Protocol(copies=6, rounds=2)
"""How a candidate of the search is timed, in less than half of the time that a finalist takes."""
PROBED_IMAGES = 64
"""Calibration samples for probes where candidates are not recalibrated."""

Arrays = list[tuple[NDArray[np.float32], ...]]


@dataclass(frozen=True)
class Place:
    """Where and how a network is measured.

    kept: measurements that outlive a run, None to measure everything anew. waiting: what may be spent on waiting for quiet.
    """

    devices: Devices
    protocol: Protocol = field(default_factory=Protocol)
    kept: Kept | None = None
    waiting: WaitingBudget = field(default_factory=WaitingBudget)


@dataclass(frozen=True)
class Samples:
    """One data role in memory, in batches as the runtime takes them, with what the dense model says about it."""

    batches: Arrays
    targets: Tensor
    dense_outputs: Tensor


@dataclass(frozen=True)
class Measured:
    """A network with its files, its figures, and its scores on the data role that they come from."""

    network: Network
    measurements: Mapping[str, Measurement]
    scores: Scores


@dataclass(frozen=True)
class _Taken:
    """Figures, the outputs that they rest on, why these are of fewer samples than there are, or None; seconds waited for quiet."""

    measurements: Mapping[str, Measurement]
    outputs: Tensor
    stopped: str | None
    waited: float


class Evaluator:
    """Evaluates candidates of one dense network. `evaluate` is a pure function of the candidate.

    Its methods may be called from one thread at a time: latency is measured.
    """

    def __init__(
        self,
        definition: EvaluatorDefinition,
        workload: Workload,
        model: nn.Module,
        costs: LayerCosts,
        place: Place,
        *,
        metrics: Mapping[str, Metric] | None = None,
        dense_onnx: bytes | None = None,
    ) -> None:
        """Exports the dense model; the device is not touched before something is measured on it.

        place: where and how it is measured. metrics: the project's own, by name. dense_onnx: the dense model's file, where it has
        been exported already. Raises ModelError where it cannot be exported.
        """
        self.definition, self.workload, self.model, self.costs = definition, workload, model.eval(), costs
        self.registry: dict[str, Metric] = {**METRICS.own, **(metrics or {})}
        self.protocol, self.waiting = place.protocol, place.waiting
        self.host = host_for(definition.runtime, definition.runtime_options, definition.threads)
        self.runtime = RUNTIMES[definition.runtime]
        self.files = ModelFiles(
            model,
            costs.total,
            workload,
            self.host,
            suffix=self.runtime.format,
            batch=definition.batch,
            dense_onnx=dense_onnx,
        )
        rounding = self.runtime.rounding(definition.runtime_options)
        self.on_device = OnDevice(place.devices, self.files.dense.file, self._timed(), place.kept, rounding)
        self.predictor: Predictor | None = None
        """Fitted on the device before the search, where the definition asks for one."""
        self._dense_session = self.host.open(self.files.dense.onnx)
        self._samples: dict[str, Samples] = {}
        self._statistics: dict[int, DenseStatistics] = {}

    @property
    def device(self) -> str:
        """Fingerprint of what latency is measured on. Raises DeviceLost where it cannot be reached."""
        return self.on_device.devices.fingerprint

    @property
    def everything(self) -> list[str]:
        """The metrics that can be measured here."""
        return [name for name in self.registry if self.unavailable(name) is None]

    def unavailable(self, metric: str) -> str | None:
        """Why a metric cannot be measured here, and what to do; None where it can."""
        if metric in ("memory", "energy") and not self.runtime.in_process:
            return f"{self.definition.runtime} runs models in processes of its own; leave it out"
        if metric == "energy" and self.definition.energy_command is None and not self.on_device.devices.hello.energy:
            return "give 'energy_command'"
        if metric == SAMPLED and not self.definition.device_samples:
            return "set 'device_samples'"
        return None

    def _timed(self) -> Arrays:
        """Calibration data that the device is timed on."""
        inputs, _ = collect(self.workload.data.calibration, TIMED_BATCHES * self.definition.batch)
        return self._whole_batches(inputs, TIMED_BATCHES)

    def _scored_there(self, role: str) -> Sample:
        """Samples of a data role that the device scores itself: of the role that everything else is scored on, and of no other.

        The search must not see what judges the finalists.
        """
        inputs, targets = collect(getattr(self.workload.data, role), self.definition.device_samples)
        return Sample(self._whole_batches(inputs, math.ceil(len(targets) / self.definition.batch)), targets)

    def _whole_batches(self, inputs: Sequence[Tensor], count: int) -> Arrays:
        """So many batches as the runtime takes them; samples that are too few start again."""
        step = self.definition.batch
        arrays = [np.resize(x.numpy(), (step * count, *x.shape[1:])) for x in inputs]
        return [tuple(np.ascontiguousarray(a[i * step : (i + 1) * step]) for a in arrays) for i in range(count)]

    def evaluate(
        self,
        job: Job,
        groups: Sequence[Group],
        saliencies: Saliencies,
        *,
        first_images: float = 0.0,
        refine: Callable[[nn.Module], nn.Module] | None = None,
        on_part: Callable[[Mapping[str, Measurement]], None] | None = None,
    ) -> Evaluation:
        """Score one candidate on the search data. A failure of this candidate alone becomes the evaluation's `failure`.

        Raises DataUnreadable and DeviceLost, which are no candidate's.

        first_images: share of the data after which a candidate that cannot pass the job's hurdles is given up. refine: what is
        done to the cut network before it is measured (a few steps of training, say). on_part: told the figures on that share.
        """
        started, exports = time.perf_counter(), self.files.exports
        removals = resolve(job.candidate, groups, saliencies)
        measurements: Mapping[str, Measurement] = {}
        failure = stopped = None
        waited = 0.0
        try:
            module = self.compress(job.candidate, removals, job.fidelity.calibration).module
            module = refine(module) if refine else module
            network = self.files.rewritten(module, self.costs.after(removals))
            constraints = self.definition.constraints
            wanted = [*self.definition.objectives, *constraints, "accuracy", "size", "macs", "parameters", "damage"]
            asked = job.hurdles or on_part
            race = Race(self.definition.objectives, job.hurdles, first_images, on_part) if asked else None
            taken = self._take(network, "search", wanted, race, job.allowance)
            measurements, stopped, waited = taken.measurements, taken.stopped, taken.waited
        except DataUnreadable:
            raise
        except (
            EvaluationFailed,
            WorkloadError,
        ) as error:  # what a metric, score or loss raises may be this candidate's fault
            failure = str(error)
        seconds = time.perf_counter() - started
        exported = self.files.exports > exports
        return Evaluation(job.candidate, removals.key, measurements, failure, seconds, exported, stopped, waited=waited)

    def probe(self, candidate: Candidate, groups: Sequence[Group], saliencies: Saliencies) -> Evaluation:
        """Only what a cut does to the outputs, on the calibration images: `damage`, with `macs` and `parameters`."""
        started = time.perf_counter()
        removals = resolve(candidate, groups, saliencies)
        images = self.definition.calibration_images
        try:
            module, outputs = self._cut(removals, images)
        except EvaluationFailed as error:
            return Evaluation(candidate, removals.key, {}, str(error))
        dense = self._dense_statistics(images or PROBED_IMAGES)
        harm = relative_error(outputs, dense.outputs)
        figures = {
            "damage": Measurement(
                harm, "relative squared error", "measured", len(outputs), None, self.host.fingerprint
            ),
            "macs": Measurement(float(self.costs.after(removals)), "MACs", "computed"),
            "parameters": Measurement(float(parameter_count(module)), "parameters", "computed"),
        }
        failure = None if np.isfinite(harm) else "the outputs are not finite"
        return Evaluation(candidate, removals.key, figures, failure, time.perf_counter() - started)

    def compress(
        self, candidate: Candidate, removals: Removals, calibration_images: int | None = None
    ) -> CompressedModel:
        """Cut the dense network and recalibrate its batch norms. Raises EvaluationFailed where it no longer runs.

        calibration_images: other than the definition's.
        """
        images = self.definition.calibration_images if calibration_images is None else calibration_images
        module, _ = self._cut(removals, images)
        return CompressedModel(candidate, removals, module)

    def _cut(self, removals: Removals, images: int) -> tuple[nn.Module, Tensor]:
        """The cut network, recalibrated on so many samples (0: not at all), and what it says to calibration samples."""
        dense = self._dense_statistics(images or PROBED_IMAGES)
        try:
            module = cut(self.model, removals)
            if images:
                return module, recalibrate(module, removals, dense)
            with torch.no_grad():
                return module, module(*dense.images)
        except Exception as error:  # whatever the user's forward raises on the cut network is this candidate's failure
            raise EvaluationFailed(f"the cut network does not run: {first_line(error)}") from error

    def score(self, network: Network, role: str, names: Sequence[str]) -> Measured:
        """The named metrics of one network on one data role, with its scores there. Raises EvaluationFailed."""
        taken = self._in_full(network, role, names)
        return Measured(network, taken.measurements, scores_of(self.workload, taken.outputs, self._role(role).targets))

    def dense_scores(self, role: str) -> Scores:
        """The dense model's scores on one data role."""
        samples = self._role(role)
        return scores_of(self.workload, samples.dense_outputs, samples.targets)

    def measure(self, network: Network, role: str, names: Sequence[str]) -> Mapping[str, Measurement]:
        """The named metrics of one network on one data role (`search`, `selection` or `test`).

        On search data latency is timed by `SEARCH`: further rounds narrow the interval more than they narrow the spread between
        repeats, and finalists are measured again.
        """
        return self._in_full(network, role, names).measurements

    def _in_full(self, network: Network, role: str, names: Sequence[str]) -> _Taken:
        """On all samples, with what this run may still wait for a quiet device."""
        taken = self._take(network, role, names, None, self.waiting.allowance(FINALIST))
        self.waiting.spend(taken.waited)
        return taken

    def _timing(self, role: str) -> Protocol:
        timing = self.protocol
        if role != "search":
            return timing
        copies, rounds = min(SEARCH.copies, timing.copies), min(SEARCH.rounds, timing.rounds)
        return replace(SEARCH, block=timing.block, copies=copies, rounds=rounds)

    def _take(self, network: Network, role: str, names: Sequence[str], race: Race | None, allowance: float) -> _Taken:
        """Figures on one data role.

        allowance: seconds for which the device may be waited for. A first measurement does not wait; where it was disturbed and the
        candidate may still reach the front there is a second one, which does.
        """
        samples, timing = self._role(role), self._timing(role)
        names = list(dict.fromkeys(names))
        sample = self._scored_there(role) if SAMPLED in names else None
        ask = partial(self._ask_device, network, names, sample=sample)
        # A prediction decides who is worth the device's time; without one the device is asked first, so that the race knows costs.
        foreseen = self._foreseen(network, names) if race is not None else None
        answer = foreseen or ask(timing)
        stopped: str | None = None
        told = False

        def lost(outputs: Tensor) -> str | None:
            nonlocal told
            assert race is not None  # noqa: S101 # nobody asks without one
            sofar = self._context(network, samples, outputs, answer)
            if race.on_part is not None and not told:
                told = True
                race.on_part(measure_all(sofar, names, self.registry))
            costs = [n for n in race.objectives if n != "accuracy"]
            try:
                scores = self.workload.score(sofar.outputs, sofar.targets)
            except WorkloadError:  # a score of the whole set may have nothing to say of a part
                return None
            return race.lost(scores, len(samples.targets), measure_all(sofar, costs, self.registry))

        def hopeless(outputs: Tensor) -> bool:
            nonlocal stopped
            stopped = lost(outputs)
            return stopped is not None

        first = len(samples.batches) if race is None else race.first(len(samples.batches))
        outputs = self._run(self.host.open(network.onnx), samples, first, hopeless)
        if foreseen is not None and stopped is None and not hopeless(outputs):
            asked = ask(timing)
            answer = replace(asked, foreseen=foreseen.foreseen) if asked is not None else None
        waited = 0.0
        if allowance > 0 and stopped is None and _disturbed(answer) and (race is None or lost(outputs) is None):
            started = time.perf_counter()
            loud = [name for name in names if name in FIGURES and name != "memory"]
            answer = _replaced(answer, self._ask_device(network, loud, replace(timing, allowance=allowance)))
            waited = time.perf_counter() - started
        figures = measure_all(self._context(network, samples, outputs, answer), names, self.registry)
        return _Taken(figures, outputs, stopped, waited)

    def time(self, network: Network) -> Report:
        """What the device says of a network's latency, with the whole protocol. Raises EvaluationFailed and DeviceLost."""
        timing = replace(self.protocol, allowance=self.waiting.allowance(FINALIST))
        answer = self._ask_device(network, ["latency"], timing)
        assert answer is not None and answer.report is not None  # noqa: S101, PT018 # latency was asked for
        self.waiting.spend(answer.report.waited)
        return answer.report

    def _foreseen(self, network: Network, names: Sequence[str]) -> Answer | None:
        """What the predictor says, where latency is all that the device would be asked for."""
        asked = {name for name in names if name in FIGURES or name == SAMPLED}
        if self.predictor is None or asked != {"latency"}:
            return None
        return self.on_device.foreseen(self.predictor.predict(network.onnx))

    def _ask_device(
        self, network: Network, names: Sequence[str], timing: Protocol, sample: Sample | None = None
    ) -> Answer | None:
        """What the device says of a network; None where none of the metrics needs it. sample: that it scores itself."""
        if not any(name in FIGURES or name == SAMPLED for name in names):
            return None
        with torch.no_grad():
            expected = network.module(*self.on_device.parity_inputs)
        return self.on_device.measure(network.file, expected, names, timing, sample)

    def _context(self, network: Network, samples: Samples, outputs: Tensor, answer: Answer | None) -> Context:
        """What the metrics look at. outputs: of the first samples, or of all."""
        if not torch.isfinite(outputs).all():
            raise EvaluationFailed("the outputs are not finite")
        dense, targets = samples.dense_outputs[: len(outputs)], samples.targets[: len(outputs)]
        return Context(self.workload, network, outputs, dense, targets, self.host.fingerprint, answer)

    def _run(self, session: HostSession, samples: Samples, first: int, hopeless: Callable[[Tensor], bool]) -> Tensor:
        """Outputs for all samples. first: batches after which `hopeless` is asked; where it says so, there are only those."""
        outputs: list[NDArray[np.float32]] = []
        for number, batch in enumerate(samples.batches, start=1):
            outputs.append(session.run(batch))
            if number == first < len(samples.batches) and hopeless(torch.from_numpy(np.concatenate(outputs))):
                break
        return torch.from_numpy(np.concatenate(outputs))

    def _role(self, role: str) -> Samples:
        if role not in self._samples:
            inputs, targets = collect(drawn(getattr(self.workload.data, role)))  # racing looks at the first share
            step = self.definition.batch
            arrays = [x.numpy() for x in inputs]
            batches = [
                tuple(np.ascontiguousarray(a[i : i + step]) for a in arrays) for i in range(0, len(targets), step)
            ]
            dense = np.concatenate([self._dense_session.run(batch) for batch in batches])
            self._samples[role] = Samples(batches, targets, torch.from_numpy(dense))
        return self._samples[role]

    def _dense_statistics(self, count: int) -> DenseStatistics:
        if count not in self._statistics:
            images, _ = collect(self.workload.data.calibration, count)
            self._statistics[count] = dense_statistics(self.model, images)
        return self._statistics[count]


def _disturbed(answer: Answer | None) -> bool:
    return answer is not None and answer.report is not None and answer.report.disturbed


def _replaced(first: Answer | None, second: Answer | None) -> Answer | None:
    """The first one, with the latency and energy of the second, which has waited for a quiet device.

    Whatever the intervals are: the narrower of two 95 % intervals holds the truth in 92 % of cases only.
    """
    if first is None or first.report is None or second is None or second.report is None:
        return second or first
    # A neighbour does not change the memory, and measuring it takes a process of its own for each model: it stands.
    memory = {
        f"{side}_memory_bytes": getattr(first.report, f"{side}_memory_bytes") for side in ("candidate", "reference")
    }
    return replace(first, report=replace(second.report, **memory))
