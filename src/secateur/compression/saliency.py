"""Saliency: how much each channel of a group matters, one function per criterion.

A criterion is a plain function in `METHODS`. It sees one group's tensors, arranged by root channel, and returns one number
per root channel; the lowest go first. Each is computed once per group and reused by every candidate.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from secateur.errors import WorkloadError
from secateur.plugins import Registry
from secateur.records import Group, Member, Workload
from secateur.workloads.calls import calling
from secateur.workloads.roles import as_tuple, drawn
from secateur.workloads.samples import in_batches


@dataclass(frozen=True)
class ChannelTensors:
    """One group's parameters by root channel; every entry is (channels, elements), float32.

    producers, biases: weights that write the channel and what is added to them (one entry per convolution or linear layer; no
    elements where a layer has no bias). written: which channels that layer has a row for, (channels,) of bool; a padded shortcut
    leaves some without. consumers: weights that read the channel. scales: those of batch norms. The `_grad` twins are gradients
    of the loss, empty for criteria without data.
    """

    name: str
    channels: int
    producers: list[Tensor]
    biases: list[Tensor]
    written: list[Tensor]
    consumers: list[Tensor]
    scales: list[Tensor]
    producers_grad: list[Tensor]
    biases_grad: list[Tensor]
    consumers_grad: list[Tensor]


@dataclass(frozen=True)
class Method:
    """A criterion: its function, whether it needs gradients on calibration data, and one line for people.

    Scores with gradients are taken batch by batch; their root mean square over the batches ranks the channels.
    """

    score: Callable[[ChannelTensors], Tensor]
    summary: str
    needs_gradients: bool = False
    needs_batch_norm: bool = False


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
        "random": Method(random, "the control: seeded noise"),
    },
)
"""The registry. A project adds its own with `METHODS['name'] = Method(...)` in the module of its workload."""

Saliencies = Mapping[str, Mapping[str, Tensor]]
"""group name → method name → (width,) scores of the root channels."""


def available_methods(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that say anything about this group: `bn_scale` needs a batch norm among its members."""
    has_norm = any(member.kind == "batch norm" for member in group.members)
    return tuple(name for name in names if has_norm or not METHODS[name].needs_batch_norm)


def compute_saliencies(
    model: nn.Module,
    groups: Sequence[Group],
    methods: Sequence[str],
    workload: Workload,
    batches: int = 8,
    batch: int = 32,
) -> dict[str, dict[str, Tensor]]:
    """Score every root channel of every group by every method, once.

    Methods with gradients see `batches` batches drawn from the calibration data. Scores are (width,), float32, on the CPU, finite
    and ≥ 0. Raises WorkloadError where the loss on calibration data is not finite, or where a method's scores are not such.
    """
    scores: dict[str, dict[str, Tensor]] = {group.name: {} for group in groups}
    modules = dict(model.named_modules())
    plain = [name for name in methods if not METHODS[name].needs_gradients]
    with torch.no_grad():
        for group in groups:
            tensors = _arrange(group, modules)
            for name in available_methods(group, plain):
                scores[group.name][name] = _score(name, tensors)
    graded = [name for name in methods if METHODS[name].needs_gradients]
    if graded:
        count = 0
        squares: dict[str, dict[str, Tensor]] = {group.name: {} for group in groups}
        for _ in _backward_passes(model, workload, batches, batch):
            count += 1
            with torch.no_grad():
                for group in groups:
                    tensors = _arrange(group, modules, graded=True)
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


def _backward_passes(model: nn.Module, workload: Workload, batches: int, batch: int) -> Iterator[None]:
    """Leave the gradients of one calibration batch after another in the parameters."""
    model.eval()
    samples = drawn(workload.data.calibration, batches * batch)
    for i, (inputs, targets) in enumerate(in_batches(samples, batch)):
        model.zero_grad(set_to_none=True)
        with torch.enable_grad(), calling(f"The model or its loss on calibration batch {i}"):
            loss = workload.loss(model(*as_tuple(inputs)), targets)
            if not torch.isfinite(loss):
                raise WorkloadError(
                    f"The loss of the dense model on calibration batch {i} is {loss.item()}. Check the weights, the input "
                    "normalisation and the loss function of the workload."
                )
            loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        yield


def _arrange(group: Group, modules: Mapping[str, nn.Module], *, graded: bool = False) -> ChannelTensors:
    """Gather a group's weights by root channel, with the gradients that a backward pass has left in them."""
    arranged = ChannelTensors(group.name, group.width, [], [], [], [], [], [], [], [])
    for member in group.members:
        layer, width = modules[member.module], group.width
        weight, bias = (cast("Tensor | None", getattr(layer, name, None)) for name in ("weight", "bias"))
        if weight is None:
            continue
        if member.kind == "batch norm":
            arranged.scales.append(_by_root(weight, 0, member, width))
        elif member.kind in ("convolution", "transposed convolution", "linear"):
            transposed = member.kind == "transposed convolution"
            dimension = int((member.side == "in") != transposed)
            if member.side == "in":
                arranged.consumers.append(_by_root(weight, dimension, member, width))
            else:
                arranged.producers.append(_by_root(weight, dimension, member, width))
                arranged.biases.append(_by_root(bias, 0, member, width))
                arranged.written.append(torch.zeros(width).index_fill(0, torch.tensor(member.roots), 1).bool())
            if graded and member.side == "in":
                arranged.consumers_grad.append(_by_root(_gradient(weight), dimension, member, width))
            elif graded:
                arranged.producers_grad.append(_by_root(_gradient(weight), dimension, member, width))
                arranged.biases_grad.append(_by_root(_gradient(bias), 0, member, width))
    return arranged


def _gradient(tensor: Tensor | None) -> Tensor | None:
    """What the backward pass has left; zero where the loss does not depend on the tensor."""
    if tensor is None:
        return None
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _by_root(tensor: Tensor | None, dimension: int, member: Member, width: int) -> Tensor:
    """Rows of a tensor along `dimension`, gathered by root channel: (width, elements); roots without a row read zero."""
    if tensor is None:
        return torch.zeros(width, 0)
    rows = (
        tensor.detach().float().movedim(dimension, 0).flatten(1)
        if tensor.dim() > 1
        else tensor.detach().float()[:, None]
    )
    per_root: dict[int, list[int]] = {}
    for root, index in zip(member.roots, member.indices, strict=True):
        per_root.setdefault(root, []).append(index)
    longest = max(len(indices) for indices in per_root.values())
    gathered = torch.zeros(width, longest * rows.shape[1])
    for root, indices in per_root.items():
        picked = rows[sorted(indices)].flatten()
        gathered[root, : picked.numel()] = picked
    return gathered
