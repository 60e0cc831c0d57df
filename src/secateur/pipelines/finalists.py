"""Networks that are to be tuned: those that the search has chosen, and the baseline that needs no pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from secateur.compression.gates import gated
from secateur.compression.masks import keep_zero, zeros_in
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.compression.storage import stored
from secateur.definition import RecoverDefinition
from secateur.gating.placing import with_gates
from secateur.pipelines.preparation import Prepared
from secateur.records import Candidate, CompressedModel, Gate, Measurement, Plan, Recovered, Trial


@dataclass(frozen=True)
class Finalist:
    """A network that is to be tuned.

    name: also of its folder. trial: whose candidate it is. searched: its figures in the search, if any. settings: of training,
    None for none. begun: builds the network that training starts from, for its candidate or one that does less.
    """

    name: str
    trial: int | None
    candidate: Candidate
    searched: Mapping[str, Measurement]
    settings: RecoverDefinition | None
    begun: Callable[[Candidate], CompressedModel]


def finalist_of(prepared: Prepared, saliencies: Saliencies, trial: Trial, number: int) -> Finalist:
    """A trial of the search that goes on. number: among the finalists, from 1."""
    evaluation = trial.evaluation
    name = f"f{number}-{evaluation.plan_key[:6]}"
    return finalist_named(prepared, saliencies, name, trial.number, evaluation.candidate, evaluation.measurements)


def finalist_named(
    prepared: Prepared,
    saliencies: Saliencies,
    name: str,
    trial: int | None,
    candidate: Candidate,
    searched: Mapping[str, Measurement],
) -> Finalist:
    """The same by what is known of it.

    Training starts from the network of the search. One that is not trained is refined: a better network as it is, but a worse one
    to train, since its batch norms, in training mode, see other statistics than the refit went by (`benchmarks/compensation.py`).
    """
    settings = prepared.definition.recover

    def begun(candidate: Candidate) -> CompressedModel:
        plan = resolve(candidate, prepared.space.groups, saliencies)
        if settings is None:
            return CompressedModel(candidate, plan, prepared.evaluator.refined(plan))
        compressed = prepared.evaluator.compress(candidate, plan)
        if settings.gates is None:
            return compressed
        plan = with_gates(plan, prepared.model, prepared.found.blocks, prepared.workload.example_inputs)
        return CompressedModel(candidate, plan, gated(compressed.module, plan.gates))

    return Finalist(name, trial, candidate, searched, settings, begun)


def small_dense_of(prepared: Prepared, knee: Recovered, folder: Path) -> Finalist:
    """The baseline that needs no pruning: the knee's widths and zeros with new weights, trained as long as the finalists are.

    A lottery ticket's last training is what counts for it. folder: the knee's. Source: Liu et al. 2019 (Rethinking the value of
    network pruning), arXiv:1810.05270; Frankle & Carbin 2019, arXiv:1803.03635, for tickets.
    """
    plan = stored(folder, prepared.model).plan
    settings = prepared.definition.recover or RecoverDefinition()
    settings = settings if settings.rewind else settings.longer(settings.steps)

    def begun(candidate: Candidate) -> CompressedModel:
        return CompressedModel(candidate, plan, renewed(prepared.model, plan, prepared.definition.search.seed))

    once = settings.model_copy(update={"steps": 1, "masks": "kept", "rewind": False})
    return Finalist("small-dense", knee.trial, knee.candidate, {}, once, begun)


def renewed(model: nn.Module, plan: Plan, seed: int) -> nn.Module:
    """The network that a plan makes of a model, with new random weights where it has any; gates begin as they always do."""
    fresh = apply(model, Plan(tuple(step for step in plan.steps if not isinstance(step, Gate))))
    masked = zeros_in(fresh, plan.masked)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in fresh.modules():
            renew = getattr(layer, "reset_parameters", None)
            if callable(renew):
                renew()
    keep_zero(masked)
    return gated(fresh, plan.gates)
