"""candidate → Evaluation: cut, recalibrate, write the ONNX file, run it, measure.

One pass over the search data answers two questions: the runs that are timed against the dense model are the runs whose outputs
are scored. That, the rewritten file (instead of an export) and recalibration on 64 images keep a candidate's cost near that of a
bare forward pass of the same images; `benchmarks/candidate_cost.py` has the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.compression.batch_norm import DenseStatistics, dense_statistics, recalibrate
from secateur.compression.costs import LayerCosts, parameter_count
from secateur.compression.saliency import Saliencies
from secateur.compression.selection import resolve
from secateur.compression.surgery import cut
from secateur.definition import EvaluatorDefinition
from secateur.errors import EvaluationFailed, ModelError, first_line
from secateur.evaluators.devices import fingerprint
from secateur.evaluators.latency import Comparison, Protocol, compare
from secateur.evaluators.metrics import METRICS, Context, Metric, measure_all, relative_error
from secateur.evaluators.onnx_export import export
from secateur.evaluators.onnx_template import OnnxTemplate, make_template
from secateur.evaluators.racing import Race
from secateur.evaluators.runtimes import RUNTIMES, Session
from secateur.records import Candidate, CompressedModel, Evaluation, Group, Job, Measurement, Removals, Workload
from secateur.workloads.roles import collect

PARITY = 1e-3
"""Largest difference between the exported and the torch outputs, relative to the largest output, that is rounding."""

PROBED_IMAGES = 64
"""Calibration samples for probes where candidates are not recalibrated."""

Arrays = list[tuple[NDArray[np.float32], ...]]


@dataclass(frozen=True)
class Samples:
    """One data role in memory, in batches as the runtime takes them, with what the dense model says about it."""

    batches: Arrays
    targets: Tensor
    dense_outputs: Tensor


@dataclass(frozen=True)
class Measured:
    """A measured network and its file."""

    measurements: Mapping[str, Measurement]
    onnx: bytes


@dataclass(frozen=True)
class _Taken:
    """Figures, and why they rest on fewer samples than there are, or None."""

    measurements: Mapping[str, Measurement]
    stopped: str | None


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
        *,
        protocol: Protocol = Protocol(),  # noqa: B008 # frozen
        metrics: Mapping[str, Metric] | None = None,
        dense_onnx: bytes | None = None,
    ) -> None:
        """Exports the dense model. metrics: the project's own, by name. dense_onnx: its file, where it has been exported already.

        Raises ModelError where it cannot be exported.
        """
        self.definition, self.workload, self.model, self.costs = definition, workload, model.eval(), costs
        self.registry: dict[str, Metric] = {**METRICS, **(metrics or {})}
        self.protocol = protocol
        self.template: OnnxTemplate = make_template(model, workload.example_inputs, dense_onnx)
        self.runtime = RUNTIMES[definition.runtime]
        self.device = fingerprint(definition.runtime, definition.threads)
        self.dense_onnx = self.template.dense.SerializeToString()
        self._dense_session = self._open(self.dense_onnx)
        self._samples: dict[str, Samples] = {}
        self._statistics: dict[int, DenseStatistics] = {}
        self.exports = 0
        """Candidates whose file had to be exported because the rewritten one did not agree with torch."""

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

        first_images: share of the data after which a candidate that cannot pass the job's hurdles is given up. refine: what is
        done to the cut network before it is measured (a few steps of training, say). on_part: told the figures on that share.
        """
        started, exports = time.perf_counter(), self.exports
        removals = resolve(job.candidate, groups, saliencies)
        measurements: Mapping[str, Measurement] = {}
        failure = stopped = None
        try:
            module = self.compress(job.candidate, removals, job.calibration_images).module
            module = refine(module) if refine else module
            onnx = self.file_of(module)
            constraints = self.definition.constraints
            wanted = [*self.definition.objectives, *constraints, "accuracy", "size", "macs", "parameters", "damage"]
            asked = job.hurdles or on_part
            race = Race(self.definition.objectives, job.hurdles, first_images, on_part) if asked else None
            taken = self._take(module, onnx, self.costs.after(removals), "search", wanted, race)
            measurements, stopped = taken.measurements, taken.stopped
        except EvaluationFailed as error:
            failure = str(error)
        seconds = time.perf_counter() - started
        exported = self.exports > exports
        return Evaluation(job.candidate, removals.key, measurements, failure, seconds, exported, stopped)

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
            "damage": Measurement(harm, "relative squared error", "measured", len(outputs), None, self.device),
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

    def export_and_measure(self, module: nn.Module, macs: int, role: str) -> Measured:
        """Export a network properly, measure everything on one data role. For finalists: seconds, not milliseconds.

        Raises EvaluationFailed where the exported model does not agree with the module or a figure is not finite, ModelError
        where it cannot be exported.
        """
        onnx = export(module, self.workload.example_inputs).SerializeToString()
        self._check_parity(module, onnx)
        return Measured(self.measure(module, onnx, macs, role, [*self.registry]), onnx)

    def measure(
        self, module: nn.Module, onnx: bytes, macs: int, role: str, names: Sequence[str]
    ) -> Mapping[str, Measurement]:
        """The named metrics of one network on one data role (`search`, `selection` or `test`).

        On search data latency gets the protocol's fewest rounds: further ones narrow the interval more than they narrow the
        spread between repeats (2.8 → 2.2 % on a busy host, for three times the cost), and finalists are measured again.
        """
        return self._take(module, onnx, macs, role, names, None).measurements

    def _take(
        self, module: nn.Module, onnx: bytes, macs: int, role: str, names: Sequence[str], race: Race | None
    ) -> _Taken:
        samples = self._role(role)
        rounds = self.protocol.least_rounds if role == "search" else self.protocol.most_rounds
        protocol = replace(self.protocol, most_rounds=rounds) if "latency" in names else None
        names = list(dict.fromkeys(names))
        stopped: str | None = None
        told = False

        def context(outputs: Tensor, comparison: Comparison | None) -> Context:
            if not torch.isfinite(outputs).all():
                raise EvaluationFailed("the outputs are not finite")
            dense, targets = samples.dense_outputs[: len(outputs)], samples.targets[: len(outputs)]
            return Context(self.workload, outputs, dense, targets, comparison, onnx, module, macs, self.device)

        def hopeless(outputs: Tensor, comparison: Comparison | None) -> bool:
            nonlocal stopped, told
            assert race is not None  # noqa: S101 # nobody asks without one
            sofar = context(outputs, comparison)
            if race.on_part is not None and not told:
                told = True
                race.on_part(measure_all(sofar, names, self.registry))
            costs = [n for n in race.objectives if n != "accuracy"]
            scores = self.workload.score(sofar.outputs, sofar.targets)
            stopped = race.lost(scores, len(samples.targets), measure_all(sofar, costs, self.registry))
            return stopped is not None

        first = len(samples.batches) if race is None else race.first(len(samples.batches))
        outputs, comparison = self._run(self._open(onnx), samples, protocol, first, hopeless)
        return _Taken(measure_all(context(outputs, comparison), names, self.registry), stopped)

    def _run(
        self,
        session: Session,
        samples: Samples,
        protocol: Protocol | None,
        first: int,
        hopeless: Callable[[Tensor, Comparison | None], bool],
    ) -> tuple[Tensor, Comparison | None]:
        """Outputs for all samples; the first runs are timed against the dense model where that is asked for.

        first: batches after which `hopeless` is asked; where it says so, there are no more outputs than those.
        """
        outputs: dict[int, NDArray[np.float32]] = {}
        full = len(samples.batches) - (len(samples.batches[-1][0]) != len(samples.batches[0][0]))

        def candidate(number: int) -> None:
            outputs[number % full] = session.run(samples.batches[number % full])

        def reference(number: int) -> None:
            self._dense_session.run(samples.batches[number % full])

        def gathered() -> Tensor:
            return torch.from_numpy(np.concatenate([outputs[i] for i in range(len(outputs))]))

        comparison = compare(candidate, reference, protocol) if protocol else None
        asked = max(first, len(outputs))  # timing may have run through more samples by now
        for number, batch in enumerate(samples.batches):
            if number not in outputs:
                outputs[number] = session.run(batch)
            if number + 1 == asked < len(samples.batches) and hopeless(gathered(), comparison):
                break
        return gathered(), comparison

    def file_of(self, module: nn.Module) -> bytes:
        """The rewritten ONNX file; an exported one where the rewriting does not agree with torch."""
        try:
            onnx = self.template.render(module)
            self._check_parity(module, onnx)
        except EvaluationFailed:
            self.exports += 1
            try:
                onnx = export(module, self.workload.example_inputs).SerializeToString()
            except ModelError as error:
                raise EvaluationFailed(str(error)) from error
            self._check_parity(module, onnx)
        return onnx

    def _check_parity(self, module: nn.Module, onnx: bytes) -> None:
        inputs = tuple(torch.cat([x[:1], x[:1]]) for x in self.workload.example_inputs)
        with torch.no_grad():
            expected = module(*inputs).numpy()
        actual = self._open(onnx).run([x.numpy() for x in inputs])
        gap = float(np.abs(actual - expected).max()) if actual.shape == expected.shape else float("inf")
        if not gap <= PARITY * float(np.abs(expected).max()):
            raise EvaluationFailed(f"the exported model and the torch module differ by {gap:.2g}")

    def _open(self, onnx: bytes) -> Session:
        return self.runtime.open(onnx, self.definition.threads)

    def _role(self, role: str) -> Samples:
        if role not in self._samples:
            inputs, targets = collect(getattr(self.workload.data, role))
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
