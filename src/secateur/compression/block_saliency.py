"""Scores of residual blocks, for every criterion that a search space wants."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateur.compression.criteria.blocks import BLOCK_METHODS, BlockPass
from secateur.compression.saliency import BATCH, BATCHES, backward_passes, raising
from secateur.compression.scores import scores_of
from secateur.errors import NotFinite
from secateur.records import DEPTH, Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import fitting
from secateur.workloads.pytrees import call
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

SAMPLES = BATCH * BATCHES


def block_saliencies(
    model: nn.Module,
    blocks: Sequence[Group],
    criteria: Sequence[str],
    workload: Workload,
    failed: Callable[[str, NotFinite], None] = raising,
) -> dict[str, dict[str, Tensor]]:
    """Score every block by every criterion over calibration data: block → `depth/criterion` → (1,), float32.

    One run for all criteria; those with gradients have one of their own, sample by sample. failed: told of a criterion whose
    scores, or the loss for them, are not finite, and why; it is then left out of all blocks. Raises WorkloadError where scores are
    wrong otherwise, or where the model does not run.
    """
    names = [block.name for block in blocks]
    scores: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for graded in (False, True):
        asked = _Asked([name for name in criteria if BLOCK_METHODS[name].needs_gradients == graded])
        if not names or not asked.criteria:
            continue
        with _watched(model, names, asked.see, graded=graded):
            try:
                deque(backward_passes(model, workload, SAMPLES, 1) if graded else _passes(model, workload), maxlen=0)
            except NotFinite as error:  # the loss, of which all of them live
                asked.failures = {**dict.fromkeys(asked.criteria, error), **asked.failures}
        for criterion in asked.criteria:
            method = f"{DEPTH}/{criterion}"
            if criterion in asked.failures:
                failed(method, asked.failures[criterion])
                continue
            for name in names:
                scores[name][method] = torch.cat(asked.given[name, criterion]).mean()[None]
    model.zero_grad(set_to_none=True)
    return scores


class _Asked:
    """What some criteria say of each block, batch by batch: (block, criterion) → scores of samples; and of which they cannot."""

    def __init__(self, criteria: Sequence[str]) -> None:
        self.criteria = criteria
        self.given: dict[tuple[str, str], list[Tensor]] = {}
        self.failures: dict[str, NotFinite] = {}

    def see(self, seen: BlockPass) -> None:
        for criterion in self.criteria:
            if criterion in self.failures:
                continue
            score = BLOCK_METHODS[criterion].score
            try:
                own = scores_of(f"{DEPTH}/{criterion}", score, seen, (len(seen.inputs),), "sample")
            except NotFinite as error:
                self.failures[criterion] = error
            else:
                self.given.setdefault((seen.name, criterion), []).append(own)


@contextmanager
def _watched(
    model: nn.Module, names: Sequence[str], see: Callable[[BlockPass], None], *, graded: bool
) -> Iterator[None]:
    """While this is open, `see` is told what blocks read and give; graded: once the gradient of what they give is known."""
    read: dict[str, Tensor] = {}

    def enter(name: str, inputs: tuple[Tensor, ...]) -> None:
        read[name] = inputs[0].detach().clone()  # the block may change it

    def leave(name: str, output: Tensor) -> None:
        inputs = read.pop(name)
        if graded:
            given = output.detach().clone()  # what follows may change it
            output.requires_grad_().register_hook(  # type: ignore[no-untyped-call] # torch does not annotate it
                lambda gradient: see(BlockPass(name, inputs, given, gradient))
            )
        else:
            see(BlockPass(name, inputs, output))

    hooks = []
    for name in names:
        block = model.get_submodule(name)
        hooks.append(block.register_forward_pre_hook(lambda _, inputs, name=name: enter(name, inputs)))
        hooks.append(block.register_forward_hook(lambda _m, _i, output, name=name: leave(name, output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _passes(model: nn.Module, workload: Workload) -> Iterator[None]:
    """The model runs on one batch of calibration samples after another."""
    with calling("The model on calibration data"):
        size = min(BATCH, fitting(model.eval(), workload.example_inputs))
        for inputs, _ in in_batches(drawn(workload.data.calibration, SAMPLES), size):
            call(model, inputs)
            yield
