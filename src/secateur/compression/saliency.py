"""Saliency: how much each channel of a group matters, one function per criterion.

A criterion is a plain function in `METHODS`. It sees one group's tensors, arranged by root channel, and returns one number
per root channel; the lowest go first. Each is computed once per group and reused by every candidate.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.compression.channel_tensors import ChannelTensors, arranged
from secateur.compression.compensation.gram import Grams, grams_of
from secateur.compression.obs import losses_in_order
from secateur.errors import WorkloadError
from secateur.plugins import Registry
from secateur.records import Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import portions
from secateur.workloads.pytrees import call, length, rows
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

BATCH = 32
"""Samples of one backward pass."""


@dataclass(frozen=True)
class Method:
    """A criterion: its function, one line for people, and its needs: gradients or Gram matrices on calibration data, a batch norm.

    Scores with gradients are taken batch by batch; their root mean square over the batches ranks the channels.
    """

    score: Callable[[ChannelTensors], Tensor]
    summary: str
    needs_gradients: bool = False
    needs_batch_norm: bool = False
    needs_grams: bool = False


def _sum(parts: Iterable[Tensor], channels: int) -> Tensor:
    total = torch.zeros(channels)
    for part in parts:
        total = total + part
    return total


def l1(tensors: ChannelTensors) -> Tensor:
    """Sum of absolute weights that write the channel, over all coupled layers. (channels,), ≥ 0.

    Source: Li et al. 2017, arXiv:1608.08710; we sum over the members of a coupled group.
    """
    return _sum((w.abs().sum(1) for w in tensors.producers), tensors.channels)


def l2(tensors: ChannelTensors) -> Tensor:
    """Euclidean norm of the weights that write the channel, over all coupled layers. (channels,), ≥ 0.

    Source: He et al. 2018 (soft filter pruning), arXiv:1808.06866; we take the norm over the whole coupled group.
    """
    return _sum((w.square().sum(1) for w in tensors.producers), tensors.channels).sqrt()


def next_layer(tensors: ChannelTensors) -> Tensor:
    """Euclidean norm of the weights that read the channel in the following layers. (channels,), ≥ 0.

    Source: the input-side norm of Luo et al. 2017 (ThiNet), arXiv:1707.06342, without their reconstruction step.
    """
    return _sum((w.square().sum(1) for w in tensors.consumers), tensors.channels).sqrt()


def fpgm(tensors: ChannelTensors) -> Tensor:
    """Sum of distances to all other filters of the layer: filters near the geometric median are replaceable. (channels,), ≥ 0.

    Source: He et al. 2019, arXiv:1811.00250, eq. 6; we sum over the layers of a coupled group. A channel without a filter in a
    layer (a padded shortcut) is no filter of zeros there.
    """
    total = torch.zeros(tensors.channels)
    for weights, written in zip(tensors.producers, tensors.written, strict=True):
        filters = weights[written]
        total[written] += torch.cdist(filters, filters).sum(1)
    return total


def taylor(tensors: ChannelTensors) -> Tensor:
    """First-order change of the loss if the channel were removed, |Σ w·g| over all weights that read it. (channels,), ≥ 0.

    In units of the loss. Removing a channel is removing what its readers make of it, and for a layer with weights w and inputs a
    that is Σ w·∂L/∂w = Σ a·∂L/∂a. So the sum is exactly the derivative along the way from the whole to the cut network, with
    biases, batch-norm shifts and any non-linearity in between, once for all coupled layers together. For batch norm and ReLU it
    equals |γ·g_γ + β·g_β|. Where no layer reads the channel (queries meet keys), it is |Σ w·g + b·g_b| of the writers, each of
    which sees the whole change: the largest of them.

    Source: Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with a gate on the channel's activations; they rank by the mean of
    squares over batches, we by its root, which ranks alike and keeps the unit.
    """

    def products(values: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        return [(w * g).sum(1) for w, g in zip(values, gradients, strict=True)]

    if tensors.consumers_grad:
        return _sum(products(tensors.consumers, tensors.consumers_grad), tensors.channels).abs()
    weights = products(tensors.producers, tensors.producers_grad)
    added = products(tensors.biases, tensors.biases_grad)
    return torch.stack([w + b for w, b in zip(weights, added, strict=True)]).abs().amax(0)


def bn_scale(tensors: ChannelTensors) -> Tensor:
    """Sum of absolute batch-norm scales of the channel. (channels,), ≥ 0.

    Source: Liu et al. 2017 (network slimming), arXiv:1708.06519, without their sparsity training. As there, the shift does not
    count: a channel with scale 0 is the constant of its shift, and recalibration gives that back to the batch norms behind it.
    Where none follows, prefer `taylor`.
    """
    return _sum((s.abs().sum(1) for s in tensors.scales), tensors.channels)


def lamp(tensors: ChannelTensors) -> Tensor:
    """Squared norm of all weights of the channel over the squared norms of the channels that are not smaller. In (0, 1].

    Source: Lee et al. 2021, arXiv:2010.07611, eq. 3, per channel instead of per weight, and over writers *and* readers: within
    one group it therefore ranks by the channel's whole energy, where `l2` ranks by its writers alone.
    """
    energy = _sum((w.square().sum(1) for w in (*tensors.producers, *tensors.consumers)), tensors.channels)
    ascending = energy.argsort(stable=True)
    remaining = energy[ascending].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(energy)
    scores[ascending] = energy[ascending] / remaining.clamp_min(torch.finfo(torch.float32).tiny)
    return scores


def obs(tensors: ChannelTensors) -> Tensor:
    """Share of the readers' output energy that is lost by the time that the channel goes, all other weights making up for it.

    (channels,), ≥ 0. Channels go one after the other, the cheapest next. See `secateur.compression.obs`.
    """
    return losses_in_order(tensors.readings, tensors.removable, tensors.channels)


def random(tensors: ChannelTensors) -> Tensor:
    """Uniform noise, the same for a group's name at every run: the control arm. (channels,), in [0, 1)."""
    return torch.rand(tensors.channels, generator=torch.Generator().manual_seed(zlib.crc32(tensors.name.encode())))


METHODS: Registry[Method] = Registry(
    "secateur.criteria",
    Method,
    {
        "l1": Method(l1, "sum of absolute weights that write the channel"),
        "l2": Method(l2, "Euclidean norm of the weights that write the channel"),
        "next_layer": Method(next_layer, "Euclidean norm of the weights that read the channel"),
        "fpgm": Method(fpgm, "distance to the geometric median of the layer's filters"),
        "taylor": Method(taylor, "first-order change of the loss, on calibration data", needs_gradients=True),
        "bn_scale": Method(bn_scale, "absolute batch-norm scale", needs_batch_norm=True),
        "lamp": Method(lamp, "layer-adaptive share of the channel's whole energy"),
        "obs": Method(obs, "loss of the readers' outputs where their other weights make up for it", needs_grams=True),
        "random": Method(random, "the control: seeded noise"),
    },
)
"""The registry. A project adds its own with `METHODS['name'] = Method(...)` in the module of its workload."""

Saliencies = Mapping[str, Mapping[str, Tensor]]
"""group name → method name → (width,) scores of the root channels."""


def available_methods(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that say anything about this group: `bn_scale` needs a batch norm among its members, `obs` a reader."""
    has_norm = any(member.kind == "batch norm" for member in group.members)
    is_read = any(member.side == "in" and member.kind in ("convolution", "linear") for member in group.members)
    return tuple(
        name
        for name in names
        if (has_norm or not METHODS[name].needs_batch_norm) and (is_read or not METHODS[name].needs_grams)
    )


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
