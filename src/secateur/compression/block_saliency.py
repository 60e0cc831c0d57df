"""Scores of residual blocks, for every criterion that a search space wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from secateur.compression.criteria.blocks import BLOCK_METHODS, BlockPass
from secateur.compression.saliency import BATCH, BATCHES, raising
from secateur.errors import NotFinite, WorkloadError
from secateur.records import DEPTH, Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import fitting
from secateur.workloads.pytrees import call
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches


def block_saliencies(
    model: nn.Module,
    blocks: Sequence[Group],
    criteria: Sequence[str],
    workload: Workload,
    failed: Callable[[str, NotFinite], None] = raising,
) -> dict[str, dict[str, Tensor]]:
    """Score every block by every criterion, in one run over calibration data: block → `depth/criterion` → (1,), float32.

    failed: told of a criterion whose scores are not finite, and why; it is then left out of all blocks. Raises WorkloadError where
    scores are wrong otherwise, or where the model does not run.
    """
    names = [block.name for block in blocks]
    by_sample = _scored(model, names, criteria, workload) if names and criteria else {}
    scores: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for criterion in criteria:
        found = {name: torch.cat(by_sample[name, criterion]).mean()[None].float() for name in names}
        wrong = next((name for name, score in found.items() if not torch.isfinite(score).all()), None)
        if wrong is not None:
            failed(
                f"{DEPTH}/{criterion}",
                NotFinite(f"The criterion '{DEPTH}/{criterion}' gives no finite score for '{wrong}'."),
            )
            continue
        for name, score in found.items():
            scores[name][f"{DEPTH}/{criterion}"] = score
    return scores


@torch.no_grad()
def _scored(
    model: nn.Module, names: Sequence[str], criteria: Sequence[str], workload: Workload
) -> dict[tuple[str, str], list[Tensor]]:
    """(block, criterion) → the scores of all samples, batch by batch."""
    read: dict[str, Tensor] = {}
    given: dict[tuple[str, str], list[Tensor]] = {(name, criterion): [] for name in names for criterion in criteria}

    def enter(name: str, inputs: tuple[Tensor, ...]) -> None:
        read[name] = inputs[0].clone()  # the block may change it

    def leave(name: str, output: Tensor) -> None:
        seen = BlockPass(name, read.pop(name), output)
        for criterion in criteria:
            given[name, criterion].append(_score(criterion, seen))

    hooks = []
    for name in names:
        block = model.get_submodule(name)
        hooks.append(block.register_forward_pre_hook(lambda _, inputs, name=name: enter(name, inputs)))
        hooks.append(block.register_forward_hook(lambda _m, _i, output, name=name: leave(name, output)))
    try:
        with calling("The model on calibration data"):
            size = min(BATCH, fitting(model.eval(), workload.example_inputs))
            for inputs, _ in in_batches(drawn(workload.data.calibration, BATCH * BATCHES), size):
                call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return given


def _score(criterion: str, seen: BlockPass) -> Tensor:
    """What a criterion says of a block, checked."""
    with calling(f"The criterion '{DEPTH}/{criterion}' on '{seen.name}'"):
        scores = BLOCK_METHODS[criterion].score(seen)
    if not isinstance(scores, Tensor) or scores.shape != (len(seen.inputs),):
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise WorkloadError(
            f"The criterion '{DEPTH}/{criterion}' gives {given} for '{seen.name}'; a tensor ({len(seen.inputs)},) is needed, one "
            "score per sample."
        )
    if (scores < 0).any():
        raise WorkloadError(
            f"The criterion '{DEPTH}/{criterion}' gives negative scores for '{seen.name}': they must be from 0 on."
        )
    return scores
