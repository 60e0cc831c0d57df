"""What a network is worth, and what it cost to find out: one judge for all arms of a comparison.

Every network is evaluated once; whoever asks for it again gets the same figures and pays the same price, so no arm profits from
a lucky measurement or from an evaluation that another arm has paid for. Prices are CPU-seconds of this process, one thread.
Nobody races: a network given up early for one arm would have no figures for the others, so every network is scored on all images.

A network is worth more where the layers that read its cut channels are refitted. `Judge.without_refit` judges the same networks
with batch norms recalibrated and nothing else: as most users of other tools get them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from common import Kept
from secateur.compression.compensation.batch_norm import batch_norms, dense_statistics, recalibrate
from secateur.compression.costs import layer_costs
from secateur.compression.plan import apply
from secateur.compression.saliency import Saliencies
from secateur.compression.transforms.channels import without
from secateur.errors import EvaluationFailed
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import dense_on, evaluation_of, goals_on, problem_of
from secateur.records import Candidate, Evaluation, Group, Job, Measurement, Plan, Remove
from secateur.search.front import as_costs, choose, hypervolume, reference_point
from secateur.search.ledger import Problem
from secateur.workloads.roles import collect

_EVALUATION: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class Step:
    """An evaluation that an arm asked for. seconds: of CPU, for thinking of it and for carrying it out."""

    evaluation: Evaluation
    seconds: float


class Judge:
    """Evaluates every network once, whoever asks."""

    def __init__(self, prepared: Prepared, saliencies: Saliencies, keep: Path | None = None) -> None:
        self.prepared, self.saliencies = prepared, saliencies
        definition = prepared.definition
        self.objectives = definition.evaluator.objectives
        conditions = ("objectives", "runtime", "threads", "batch", "calibration_images")
        about = {name: getattr(definition.evaluator, name) for name in conditions}
        self.kept = Kept(keep, {"workload": prepared.workload.name, **about})
        self.dense = dense_on(prepared, "search")
        # The dense figures are measured as well: kept with the others, they make the reference the same in a resumed run.
        evaluation = Evaluation(prepared.space.dense(), "dense", self.dense)
        kept = self.kept.get("dense", lambda: _EVALUATION.dump_python(evaluation, mode="json"))
        self.dense = dict(_EVALUATION.validate_python(kept).measurements)
        self.problem: Problem = problem_of(prepared, saliencies, self.dense)
        self._measure_against(self.dense)
        images, _ = collect(prepared.workload.data.calibration, definition.evaluator.calibration_images)
        self._statistics = dense_statistics(prepared.model, images)
        self.refits, self.role = True, "search"

    def _measure_against(self, dense: Mapping[str, Measurement]) -> None:
        """Take the corner of the volume, and the unit of each axis, from the dense network's figures."""
        self.reference = np.array(reference_point(self.objectives, dense, goals_on(self.prepared, dense)))
        self.scale = np.array([dense[n].value if d == "minimize" else 1.0 for n, d in self.objectives.items()])

    def offering(self, methods: Collection[str]) -> Judge:
        """The same judge of a space with these methods alone."""
        space = self.problem.space
        offered = {
            name: choice.offering([method for method in choice.methods if method in methods])
            for name, choice in space.choices.items()
        }
        other = copy.copy(self)
        choices = {name: choice for name, choice in offered.items() if choice.methods}
        other.problem = replace(self.problem, space=replace(space, choices=choices))
        return other

    def on_selection(self) -> Judge:
        """The same judge, who scores on selection data, with the dense network's figures there."""
        other = copy.copy(self)
        other.role = "selection"
        other._measure_against(dense_on(self.prepared, "selection"))
        return other

    def without_refit(self) -> Judge:
        """The same judge, who refits no layer."""
        other = copy.copy(self)
        other.refits = False
        return other

    def evaluate(self, candidate: Candidate) -> Step:
        """A network's figures and their price."""
        step = self.evaluate_plan(self.problem.resolve(candidate))
        return replace(step, evaluation=replace(step.evaluation, candidate=candidate))

    def evaluate_plan(self, plan: Plan) -> Step:
        """The same for a network of which is known what to remove from ours."""
        job = Job(Candidate({}), plan)  # without hurdles: nothing is given up early

        def evaluate() -> Evaluation:
            with self._refitting():
                return evaluation_of(self.prepared, job) if self.role == "search" else self._on_role(job)

        key = plan.key if self.role == "search" else f"{self.role} {plan.key}"
        return self._judged(key if self.refits else f"not refitted {key}", evaluate)

    def _on_role(self, job: Job) -> Evaluation:
        """What finalists get: scored on another role than the search's."""
        evaluator = self.prepared.evaluator
        module = evaluator.compress(job.candidate, job.plan).module
        network = evaluator.files.rewritten(module, self.prepared.costs.after(job.plan))
        return Evaluation(job.candidate, job.plan.key, evaluator.measure(network, self.role, [*self.objectives]))

    def evaluate_foreign(self, module: nn.Module) -> Step:
        """The same for a network that another library has cut and that ours may be unable to cut: recalibrated, never refitted."""
        plan = removed_channels(self.prepared.model, module)
        return self._judged(f"foreign {plan.key}", lambda: self._foreign(module, plan))

    @contextmanager
    def _refitting(self) -> Iterator[None]:
        cutting = self.prepared.evaluator.cutting
        grams = cutting.grams
        if not self.refits:
            cutting.grams = {}
        try:
            yield
        finally:
            cutting.grams = grams

    def _foreign(self, module: nn.Module, plan: Plan) -> Evaluation:
        evaluator, prepared = self.prepared.evaluator, self.prepared
        nothing = Candidate({})
        try:
            recalibrate(module, plan, self._statistics)
            macs = layer_costs(module, prepared.workload.example_inputs).total
            network = evaluator.files.rewritten(module, macs)
            names = [*self.objectives, "accuracy", "size", "macs", "parameters"]
            return Evaluation(nothing, plan.key, evaluator.measure(network, "search", names))
        except (EvaluationFailed, RuntimeError) as error:
            return Evaluation(nothing, plan.key, {}, f"{type(error).__name__}: {error}")

    def _judged(self, key: str, evaluate: Callable[[], Evaluation]) -> Step:
        def measure() -> dict[str, object]:
            started = time.process_time()
            evaluation = evaluate()
            seconds = time.process_time() - started
            return {"evaluation": _EVALUATION.dump_python(evaluation, mode="json"), "seconds": seconds}

        result = self.kept.get(key, measure)
        return Step(_EVALUATION.validate_python(result["evaluation"]), result["seconds"])

    def volume(self, evaluations: Sequence[Evaluation]) -> float:
        """Hypervolume of what an arm has found."""
        return hypervolume(self._points(evaluations), self.reference / self.scale)

    def chosen(self, evaluations: Sequence[Evaluation], count: int) -> list[Evaluation]:
        """The `count` evaluations that make most of the volume together."""
        sound = [e for e in evaluations if self._sound(e)]
        return [sound[i] for i in choose(self._points(sound), self.reference / self.scale, count)]

    def _points(self, evaluations: Sequence[Evaluation]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return as_costs([e for e in evaluations if self._sound(e)], self.objectives) / self.scale

    def _sound(self, evaluation: Evaluation) -> bool:
        return evaluation.complete and all(name in evaluation.measurements for name in self.objectives)


class Meter:
    """Charges one arm: the CPU time that passes between its evaluations, and the price of each of them."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.steps = judge, list[Step]()
        self._since = time.process_time()

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Judge a candidate and charge for it."""
        return self._charge(lambda: self.judge.evaluate(candidate))

    def evaluate_plan(self, plan: Plan) -> Evaluation:
        """Judge a network of which is known what to remove from ours, and charge for it."""
        return self._charge(lambda: self.judge.evaluate_plan(plan))

    def evaluate_foreign(self, module: nn.Module) -> Evaluation:
        """Judge a network of another library and charge for it."""
        return self._charge(lambda: self.judge.evaluate_foreign(module))

    def _charge(self, judge: Callable[[], Step]) -> Evaluation:
        thinking = time.process_time() - self._since
        step = judge()
        self.steps.append(replace(step, seconds=step.seconds + thinking))
        self._since = time.process_time()
        return step.evaluation


def removed_channels(dense: nn.Module, module: nn.Module) -> Plan:
    """Which channels another library has taken from each batch norm, found by comparing scales and shifts."""
    whole, left = dense.state_dict(), module.state_dict()
    gone = {}
    for name in batch_norms(dense):
        removed = set(range(len(whole[f"{name}.weight"]))) - channels_left(whole, left, name)
        if removed:
            gone[name] = tuple(sorted(removed))
    return Plan(tuple(Remove(name, "out", channels) for name, channels in gone.items()))


def plan_of(dense: nn.Module, groups: Sequence[Group], tensors: Mapping[str, Tensor]) -> Plan:
    """The cut that made these tensors of another library, in our groups. Leaves where ours would give other shapes."""
    whole = dense.state_dict()
    removed = dict[str, Collection[int]]()
    for group in groups:
        norm = next(m for m in group.members if m.kind == "batch norm")
        left = channels_left(whole, tensors, norm.module)
        removed[group.name] = [r for r, i in zip(norm.roots, norm.indices, strict=True) if i not in left]
    plan = without(groups, removed)
    for name, tensor in apply(dense, plan).state_dict().items():
        if tensor.shape != tensors[name].shape:
            raise SystemExit(f"'{name}': it leaves {tuple(tensors[name].shape)}, replayed {tuple(tensor.shape)}.")
    return plan


def channels_left(dense: Mapping[str, Tensor], smaller: Mapping[str, Tensor], norm: str) -> set[int]:
    """The channels of the dense batch norm that the smaller one still has, in whatever order. dense, smaller: state dicts.

    Leaves where a channel is none of the dense one's, or where the dense one has it twice.
    """
    whole, left = (torch.stack([tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]], 1) for tensors in (dense, smaller))
    same = (left[:, None] == whole[None]).all(2)
    if not bool((same.sum(1) == 1).all()):
        raise SystemExit(f"'{norm}': the channels that stay cannot be told by their scales and shifts.")
    return set(same.int().argmax(1).tolist())
