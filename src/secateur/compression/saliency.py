"""Saliency scores: how much each channel of a group matters, by each criterion, once per group for every candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import Grams, grams_of
from secateur.compression.criteria import METHODS, available_methods
from secateur.compression.criteria.channel_tensors import ChannelTensors, arranged
from secateur.errors import WorkloadError
from secateur.records import Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import portions
from secateur.workloads.pytrees import call, length, rows
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

BATCH = 32
"""Samples of one backward pass."""

Saliencies = Mapping[str, Mapping[str, Tensor]]
"""group name → method name → (width,) scores of the root channels."""


def compute_saliencies(
    model: nn.Module,
    groups: Sequence[Group],
    methods: Sequence[str],
    workload: Workload,
    batches: int = 8,
    grams: Grams | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Score every root channel of every group by every method, once.

    Methods with gradients see `batches` batches drawn from the calibration data, those with Gram matrices these: `grams`, or what
    the same samples give. Scores are (width,), float32, on the CPU, finite
    and ≥ 0. Raises WorkloadError where the loss on calibration data is not finite, or where a method's scores are not such.
    """
    scores: dict[str, dict[str, Tensor]] = {group.name: {} for group in groups}
    modules = dict(model.named_modules())
    plain = [name for name in methods if not METHODS[name].needs_gradients]
    if grams is None and any(METHODS[name].needs_grams for name in methods):
        grams = grams_of(model, groups, workload, batches * BATCH)
    with torch.no_grad():
        for group in groups:
            tensors = arranged(group, modules, grams=grams)
            for name in available_methods(group, plain):
                scores[group.name][name] = _score(name, tensors)
    graded = [name for name in methods if METHODS[name].needs_gradients]
    if graded:
        count = 0
        squares: dict[str, dict[str, Tensor]] = {group.name: {} for group in groups}
        for _ in _backward_passes(model, workload, batches):
            count += 1
            with torch.no_grad():
                for group in groups:
                    tensors = arranged(group, modules, graded=True)
                    for name in available_methods(group, graded):
                        square = _score(name, tensors).square()
                        squares[group.name][name] = squares[group.name].get(name, 0) + square
        for group in groups:
            for name, total in squares[group.name].items():
                scores[group.name][name] = (total / count).sqrt()
        model.zero_grad(set_to_none=True)
    return scores


def _score(method: str, tensors: ChannelTensors) -> Tensor:
    """What a criterion says of a group, checked: NaN would be sorted, and thresholds over groups need scores from 0 on."""
    with calling(f"The saliency criterion '{method}' on '{tensors.name}'"):
        scores = METHODS[method].score(tensors)
    if not isinstance(scores, Tensor) or scores.shape != (tensors.channels,):
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise WorkloadError(
            f"The saliency criterion '{method}' gives {given} for '{tensors.name}'; a tensor ({tensors.channels},) is needed, one "
            "score per channel."
        )
    wrong = (~torch.isfinite(scores) | (scores < 0)).nonzero()
    if len(wrong):
        channel = int(wrong[0])
        raise WorkloadError(
            f"The saliency criterion '{method}' gives {float(scores[channel]):g} for channel {channel} of '{tensors.name}'; scores "
            "must be finite and not negative. Where it reads gradients, look at the loss; else leave it out of 'methods'."
        )
    return scores.float()


def _backward_passes(model: nn.Module, workload: Workload, batches: int) -> Iterator[None]:
    """Leave the gradients of one calibration batch after another in the parameters."""
    model.eval()
    samples = drawn(workload.data.calibration, batches * BATCH)
    for i, (inputs, targets) in enumerate(in_batches(samples, BATCH)):
        model.zero_grad(set_to_none=True)
        with torch.enable_grad(), calling(f"The model or its loss on calibration batch {i}"):
            for part in portions(model, inputs, graded=True):
                some = rows(targets, part)
                loss = workload.loss(call(model, rows(inputs, part)), some)
                if not torch.isfinite(loss):
                    raise WorkloadError(
                        f"The loss of the dense model on calibration batch {i} is {loss.item()}. Check the weights, the input "
                        "normalisation and the loss function of the workload."
                    )
                share = length(some) / length(targets)  # the loss is a mean over samples
                (share * loss).backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        yield
