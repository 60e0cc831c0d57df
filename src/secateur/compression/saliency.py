"""Saliency scores: how much each channel of a group matters, by each criterion, once per group for every candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import Grams, grams_of
from secateur.compression.criteria import METHODS, available_methods
from secateur.compression.criteria.activities import activities_of
from secateur.compression.criteria.channel_tensors import ChannelTensors, arranged
from secateur.compression.scores import scores_of
from secateur.errors import NotFinite
from secateur.records import Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import portions
from secateur.workloads.pytrees import call, length, rows
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

BATCH, BATCHES = 32, 8
"""Samples of a backward pass, and passes: those who ask for the gradients of single samples see as many samples."""

Saliencies = Mapping[str, Mapping[str, Tensor]]
"""group name → criterion → (width,) scores of the root channels; `weights/criterion` → (weights,) scores of the group's weights;
`depth/criterion` → (1,) of a block."""


def raising(_: str, error: NotFinite) -> None:
    """What becomes of a criterion without finite scores where nobody asks."""
    raise error


def compute_saliencies(
    model: nn.Module,
    groups: Sequence[Group],
    methods: Sequence[str],
    workload: Workload,
    grams: Grams | None = None,
    failed: Callable[[str, NotFinite], None] = raising,
) -> dict[str, dict[str, Tensor]]:
    """Score every root channel of every group by every method, once.

    All see samples drawn from the calibration data; grams: what `grams_of` gives of them, where it is known. Scores are (width,),
    float32, on the CPU, finite and ≥ 0. failed: told of a method whose scores, or the loss for them, are not finite, and why; the
    method is then left out of all groups. Raises WorkloadError where scores are wrong otherwise, or where the model does not run.
    """
    modules, asked = dict(model.named_modules()), {name: METHODS[name] for name in methods}
    samples = BATCH * BATCHES
    if grams is None and any(method.needs_grams for method in asked.values()):
        grams = grams_of(model, groups, workload, samples)
    wanted = any(method.needs_activations for method in asked.values())
    activities = activities_of(model, groups, workload, samples) if wanted else None

    def at_rest(group: Group) -> ChannelTensors:
        return arranged(group, modules, grams=grams, activities=activities)

    def graded(group: Group) -> ChannelTensors:
        return arranged(group, modules, graded=True)

    by_batch = [name for name, method in asked.items() if method.needs_gradients]
    by_sample = [name for name, method in asked.items() if method.needs_sample_gradients]
    others = [name for name in methods if name not in (*by_batch, *by_sample)]
    looks = (
        _Looks(others, at_rest, [None]),
        _Looks(by_batch, graded, backward_passes(model, workload, samples, BATCH), power=2),
        _Looks(by_sample, graded, backward_passes(model, workload, samples, 1)),
    )
    found = [_averaged(look, groups, failed) for look in looks if look.methods]
    model.zero_grad(set_to_none=True)
    return {group.name: {name: s for scores in found for name, s in scores[group.name].items()} for group in groups}


@dataclass(frozen=True)
class _Looks:
    """When some methods are asked, and about what: (mean of score^power)^(1/power) over all times."""

    methods: Sequence[str]
    tensors: Callable[[Group], ChannelTensors]
    times: Iterable[None]
    power: int = 1


@torch.no_grad()
def _averaged(
    looks: _Looks, groups: Sequence[Group], failed: Callable[[str, NotFinite], None]
) -> dict[str, dict[str, Tensor]]:
    totals: dict[str, dict[str, Tensor]] = {group.name: {} for group in groups}
    failures: dict[str, NotFinite] = {}
    count = 0
    try:
        for _ in looks.times:
            count += 1
            for group in groups:
                tensors, sums = looks.tensors(group), totals[group.name]
                for name in available_methods(group, [name for name in looks.methods if name not in failures]):
                    try:
                        sums[name] = sums.get(name, 0) + _scores(name, tensors) ** looks.power
                    except NotFinite as error:
                        failures[name] = error
    except NotFinite as error:  # the loss, of which all of them live
        failures = {**dict.fromkeys(looks.methods, error), **failures}
    for name, failure in failures.items():
        failed(name, failure)
    return {
        group: {name: (total / count) ** (1 / looks.power) for name, total in sums.items() if name not in failures}
        for group, sums in totals.items()
    }


def _scores(method: str, tensors: ChannelTensors) -> Tensor:
    return scores_of(method, METHODS[method].score, tensors, (tensors.channels,), "channel")


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it


def backward_passes(
    model: nn.Module, workload: Workload, samples: int, size: int, backward: Callable[[Tensor], None] = _backward
) -> Iterator[None]:
    """Leave the gradients of one batch of calibration samples after another in the parameters.

    size: of a batch. backward: what is done with the loss of a portion of one, which is weighted by its share.
    """
    model.eval()
    what = "sample" if size == 1 else "batch"
    for i, (inputs, targets) in enumerate(in_batches(drawn(workload.data.calibration, samples), size)):
        model.zero_grad(set_to_none=True)
        with torch.enable_grad(), calling(f"The model or its loss on calibration {what} {i}"):
            for part in portions(model, inputs, graded=True):
                some = rows(targets, part)
                loss = workload.loss(call(model, rows(inputs, part)), some)
                if not torch.isfinite(loss):
                    raise NotFinite(
                        f"The loss of the dense model on calibration {what} {i} is {loss.item()}. Check the weights, the input "
                        "normalisation and the loss function of the workload."
                    )
                share = length(some) / length(targets)  # the loss is a mean over samples
                backward(share * loss)
        yield
