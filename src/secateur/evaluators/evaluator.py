"""One candidate from plan to figures: cut it, repair it, make its file, measure it on the device, score it.

Scores come from the runtime on this host, costs from the device. The rewritten file (instead of an export) and recalibration on
64 images keep a candidate's own cost near that of a bare forward pass of the same images; `benchmarks/candidate_cost.py` has the
figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import nn

from secateur.agent.runtimes import RUNTIMES
from secateur.definition import EvaluatorDefinition
from secateur.errors import DataUnreadable, EvaluationFailed, ModelError, WorkloadError
from secateur.evaluators.cutting import Cutting
from secateur.evaluators.measuring import Measuring, Place, asks_device, disturbed
from secateur.evaluators.metrics import METRICS, Context, Metric, relative_error
from secateur.evaluators.model_files import DenseModel, ModelFiles, Network
from secateur.evaluators.on_device import SAMPLED, Answer
from secateur.evaluators.racing import Race
from secateur.evaluators.runtimes import host_for
from secateur.evaluators.sample_scores import RESAMPLES, SEARCH_RESAMPLES, Scores
from secateur.evaluators.scoring import Samples, Scoring, View
from secateur.evaluators.waiting import FINALIST, Loan, WaitingBudget
from secateur.records import SCORE, Candidate, CompressedModel, Evaluation, Job, Measurement, Plan
from secateur.workloads.pytrees import joined, length


@dataclass(frozen=True)
class Measured:
    """A network with its files, its figures, and its scores on the data role that they come from."""

    network: Network
    measurements: Mapping[str, Measurement]
    scores: Scores


@dataclass(frozen=True)
class _Taken:
    """Figures, and why they rest on fewer samples than there are, or None."""

    measurements: Mapping[str, Measurement]
    stopped: str | None = None


class Evaluator:
    """Evaluates candidates of one dense network. `evaluate` is a pure function of the job.

    Its methods may be called from one thread at a time: latency is measured.
    """

    def __init__(
        self,
        definition: EvaluatorDefinition,
        dense: DenseModel,
        place: Place,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        """Exports the dense model; the device is not touched before something is measured on it.

        place: where and how it is measured. metrics: the project's own, by name. Raises ModelError where it cannot be exported.
        """
        self.definition = definition
        self.workload, self.model, self.costs = dense.workload, dense.model.eval(), dense.costs
        self.registry: dict[str, Metric] = {**METRICS.own, **(metrics or {})}
        self.waiting = WaitingBudget(definition.waiting)
        self.host = host_for(definition.runtime, definition.runtime_options, definition.threads)
        self.runtime = RUNTIMES[definition.runtime]
        self.files = ModelFiles(dense, self.host, suffix=self.runtime.format, batch=definition.batch)
        self.measuring = Measuring(definition, dense.workload.data, self.files, place, self.waiting)
        self._scoring = Scoring(dense.workload, self.host, definition.batch, self.files)
        self.cutting = Cutting(self.model, dense.workload)
        self._uncut: Network | None = None

    def cut_from(self, model: nn.Module) -> None:
        """Let candidates be cut from another network with the original's layers; comparisons are with the original still.

        Only what a cut does in the search, its `damage`, is seen against the network that is cut. Raises ModelError where no file
        can be made of it.
        """
        self.cutting = Cutting(model.eval(), self.workload)
        try:
            self._uncut = self.files.rewritten(model, self.costs.total)
        except EvaluationFailed as error:
            raise ModelError(f"The network after sparse training cannot be exported: {error}.") from error

    def uncut_score(self) -> Measurement | None:
        """On search data, of the network that candidates are cut from; None where that is the original."""
        return None if self._uncut is None else self.measure(self._uncut, "search", [SCORE])[SCORE]

    @property
    def device(self) -> str:
        """Fingerprint of what latency is measured on. Raises DeviceLost where it cannot be reached."""
        return self.measuring.devices.fingerprint

    @property
    def everything(self) -> list[str]:
        """The metrics that can be measured here."""
        return [name for name in self.registry if self.unavailable(name) is None]

    def unavailable(self, metric: str) -> str | None:
        """Why a metric cannot be measured here, and what to do; None where it can."""
        if metric in ("memory", "energy") and not self.runtime.in_process:
            return f"{self.definition.runtime} runs models in processes of its own; leave it out"
        if metric == "energy" and self.definition.energy_command is None and not self.measuring.devices.hello.energy:
            return "give 'energy_command'"
        if metric == SAMPLED and not self.definition.device_samples:
            return "set 'device_samples'"
        return None

    def evaluate(
        self,
        job: Job,
        *,
        first_images: float = 0.0,
        refine: Callable[[nn.Module], nn.Module] | None = None,
        on_part: Callable[[Mapping[str, Measurement]], None] | None = None,
    ) -> Evaluation:
        """Score one candidate on the search data. A failure of this candidate alone becomes the evaluation's `failure`.

        Raises DataUnreadable and DeviceLost, which are no candidate's.

        One that is looked at again has no figures of the device's: those of the search stand.

        first_images: share of the data after which a candidate that cannot pass the job's hurdles is given up. refine: what is
        done to the cut network before it is measured (a few steps of training, say). on_part: given the figures on that share.
        """
        started, exports = time.perf_counter(), self.files.exports
        loan = Loan(job.allowance)
        self.files.close()
        taken: _Taken | None = None
        failure: str | None = None
        try:
            module = self.compress(job.candidate, job.plan, job.fidelity.calibration).module
            module = refine(module) if refine else module
            network = self.files.rewritten(module, self.costs.after(job.plan))
            wanted = [*self.definition.objectives, *self.definition.constraints]
            wanted += ["accuracy", "size", "macs", "parameters", "damage"]
            wanted += ["nonzero"] if job.plan.masks else []
            if job.fidelity.again:  # what the device has said of these widths stands
                wanted = [name for name in wanted if not asks_device([name])]
            race = Race(self.definition.objectives, job.hurdles, first_images, on_part)
            taken = self._taken(network, wanted, race, loan)
        except DataUnreadable:
            raise
        except (
            EvaluationFailed,
            WorkloadError,
        ) as error:  # what a metric, score or loss raises may be this candidate's fault
            failure = str(error)
        return Evaluation(
            job.candidate,
            job.plan.key,
            taken.measurements if taken else {},
            failure=failure,
            seconds=time.perf_counter() - started,
            exported=self.files.exports > exports,
            stopped=taken.stopped if taken else None,
            waited=loan.spent,
        )

    def probe(self, job: Job) -> Evaluation:
        """Only what a cut does to the outputs, on the calibration images: `damage`."""
        started = time.perf_counter()
        images = self.definition.calibration_images
        try:
            _, outputs = self.cutting.probed(job.plan, images)
        except EvaluationFailed as error:
            return Evaluation(job.candidate, job.plan.key, {}, str(error))
        output = self.workload.output
        harm = relative_error(output(outputs), output(self.cutting.dense_outputs(images)))
        damage = Measurement(harm, "relative squared error", "measured", length(outputs), None, self.host.fingerprint)
        failure = None if np.isfinite(harm) else "the outputs are not finite"
        return Evaluation(job.candidate, job.plan.key, {"damage": damage}, failure, time.perf_counter() - started)

    def compress(self, candidate: Candidate, plan: Plan, calibration_images: int | None = None) -> CompressedModel:
        """Carry the plan out, refit and recalibrate what remains. Raises EvaluationFailed where it no longer runs.

        calibration_images: other than the definition's.
        """
        images = self.definition.calibration_images if calibration_images is None else calibration_images
        return CompressedModel(candidate, plan, self.cutting.cut(plan, images))

    def refined(self, plan: Plan) -> nn.Module:
        """A finalist that is not trained: repaired with more effort than a candidate. Raises EvaluationFailed and WorkloadError."""
        return self.cutting.refined(plan, self.definition.calibration_images, self.definition.refit_images)

    def ask(self, network: Network, role: str, names: Sequence[str]) -> Answer | None:
        """What the device says of one network; None where none of the metrics needs it.

        A disturbed answer is asked for again, with what this run may still wait for a quiet device. Without `device_samples` no
        data role is read, so another thread may ask. Raises EvaluationFailed and DeviceLost.
        """
        if not asks_device(names):
            return None
        with self.waiting.lent(FINALIST) as loan:
            answer = self.measuring.measured(network, role, names)
            if disturbed(answer) and loan.seconds > 0:
                answer = self.measuring.measured_again(network, role, names, answer, loan)
        return answer

    def score(self, network: Network, role: str, names: Sequence[str], answer: Answer | None = None) -> Measured:
        """The named metrics of one network on one data role, with its scores there. Raises EvaluationFailed.

        answer: what the device has said of it already; it is asked where there is none.
        """
        names = list(dict.fromkeys(names))
        view, context = self._seen(network, role, answer or self.ask(network, role, names))
        return Measured(network, view.figures(context, names), context.scores)

    def dense_scores(self, role: str) -> Scores:
        """The dense model's scores on one data role."""
        return self._scoring.scores(self._scoring.samples(role).dense_outputs, role)

    def compared(self, files: tuple[bytes, bytes], role: str) -> dict[str, tuple[Scores, Scores]]:
        """What two ONNX files score on a data role: on all of it by the name "", and on each of its slices that has a score.

        Raises EvaluationFailed where one of them does not run on it, WorkloadError where the workload's functions fail.
        """
        self.files.close()
        return self._scoring.compared(files, role)

    def measure(self, network: Network, role: str, names: Sequence[str]) -> Mapping[str, Measurement]:
        """The named metrics of one network on one data role (`search`, `selection` or `test`). Raises EvaluationFailed."""
        names = list(dict.fromkeys(names))
        view, context = self._seen(network, role, self.ask(network, role, names))
        return view.figures(context, names)

    def deviation(self, network: Network, other: Network, role: str) -> Measurement:
        """How far a network's outputs on a data role are from another one's: `relative_error`. Raises EvaluationFailed."""
        samples, output = self._scoring.samples(role), self.workload.output
        own, others = (output(self._scoring.outputs(self.files.session(n), samples.batches)) for n in (network, other))
        error = relative_error(own, others)
        return Measurement(error, "relative squared error", "measured", len(own), None, self.host.fingerprint)

    def _seen(self, network: Network, role: str, answer: Answer | None) -> tuple[View, Context]:
        """A network with its outputs on a whole data role."""
        view = self._view(network, role)
        return view, view.context(self._scoring.outputs(self.files.session(network), view.samples.batches), answer)

    def _view(self, network: Network, role: str) -> View:
        resamples = SEARCH_RESAMPLES if role == "search" else RESAMPLES
        samples = self._scoring.samples(role)
        return View(self.workload, network, samples, self.registry, self.host.fingerprint, resamples)

    @cached_property
    def _before_cuts(self) -> Samples:
        """The search data, with the outputs of the network that candidates are cut from in place of the dense model's."""
        samples = self._scoring.samples("search")
        if self._uncut is None:
            return samples
        return replace(samples, dense_outputs=self._scoring.outputs(self.files.session(self._uncut), samples.batches))

    def _taken(self, network: Network, names: Sequence[str], race: Race, loan: Loan) -> _Taken:
        """A candidate's figures on the search data.

        A prediction decides who is worth the device's time; without one the device is asked first, so that the race knows costs.
        What it was disturbed in is measured again, on a loan of waiting, where the candidate may still reach the front.
        """
        names, view = list(dict.fromkeys(names)), replace(self._view(network, "search"), samples=self._before_cuts)
        samples = view.samples
        predicted = self.measuring.predicted(network, names) if race.contested else None
        answer = predicted or self.measuring.measured(network, "search", names)
        session, part = self.files.session(network), race.first(len(samples.batches))
        context = view.context(self._scoring.outputs(session, samples.batches[:part]), answer)
        if part < len(samples.batches):
            if race.on_part is not None:
                race.on_part(view.figures(context, names))
            if stopped := race.hopeless(view, context):
                return _Taken(view.figures(context, names), stopped)
            rest = self._scoring.outputs(session, samples.batches[part:])
            context = view.context(joined([context.outputs, rest]), answer)
        if predicted is not None:
            if stopped := race.hopeless(view, context):
                return _Taken(view.figures(context, names), stopped)
            measured = self.measuring.measured(network, "search", names)
            answer = replace(measured, prediction=predicted.prediction) if measured is not None else None
            context = replace(context, device=answer)
        if disturbed(answer) and loan.seconds > 0 and not race.hopeless(view, context):
            answer = self.measuring.measured_again(network, "search", names, answer, loan)
            context = replace(context, device=answer)
        return _Taken(view.figures(context, names))
