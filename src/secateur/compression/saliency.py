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

from secateur.errors import WorkloadError
from secateur.records import Group, Member, Workload
from secateur.workloads.calls import calling
from secateur.workloads.roles import as_tuple
from secateur.workloads.samples import in_batches


@dataclass(frozen=True)
class ChannelTensors:
    """One group's parameters by root channel; every entry is (channels, elements), float32.

    producers: weights that write the channel (one entry per convolution or linear layer). consumers: weights that read it.
    scales: those of batch norms. The `_grad` twins are gradients of the loss, empty for criteria without data.
    """

    name: str
    channels: int
    producers: list[Tensor]
    consumers: list[Tensor]
    scales: list[Tensor]
    producers_grad: list[Tensor]
    scales_grad: list[Tensor]


@dataclass(frozen=True)
class Method:
    """A criterion: its function, whether it needs gradients on calibration data, and one line for people."""

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

    Source: He et al. 2019, arXiv:1811.00250, eq. 6; we sum over the layers of a coupled group.
    """
    return _sum((torch.cdist(w, w).sum(1) for w in tensors.producers), tensors.channels)


def taylor(tensors: ChannelTensors) -> Tensor:
    """First-order change of the loss if the channel were removed. (channels,), ≥ 0, in units of the loss.

    |Σ w·g| over the weights that write the channel, plus the same over batch-norm scales; averaged over batches.
    Source: Molchanov et al. 2019, arXiv:1906.10771, eq. 8 (they square, which ranks alike for one layer); we sum members.
    """
    written = ((w * g).sum(1).abs() for w, g in zip(tensors.producers, tensors.producers_grad, strict=True))
    scaled = ((s * g).sum(1).abs() for s, g in zip(tensors.scales, tensors.scales_grad, strict=True))
    return _sum((*written, *scaled), tensors.channels)


def bn_scale(tensors: ChannelTensors) -> Tensor:
    """Sum of absolute batch-norm scales of the channel. (channels,), ≥ 0.

    Source: Liu et al. 2017 (network slimming), arXiv:1708.06519, without their sparsity training.
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


METHODS: dict[str, Method] = {
    "l1": Method(l1, "sum of absolute weights that write the channel"),
    "l2": Method(l2, "Euclidean norm of the weights that write the channel"),
    "next_layer": Method(next_layer, "Euclidean norm of the weights that read the channel"),
    "fpgm": Method(fpgm, "distance to the geometric median of the layer's filters"),
    "taylor": Method(taylor, "first-order change of the loss, on calibration data", needs_gradients=True),
    "bn_scale": Method(bn_scale, "absolute batch-norm scale", needs_batch_norm=True),
    "lamp": Method(lamp, "layer-adaptive share of the channel's whole energy"),
    "random": Method(random, "the control: seeded noise"),
}
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

    Methods with gradients average over `batches` batches of the calibration data. Scores are (width,), float32, on the CPU.
    Raises WorkloadError where the loss on calibration data is not finite.
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
        for _ in _backward_passes(model, workload, batches, batch):
            count += 1
            with torch.no_grad():
                for group in groups:
                    tensors = _arrange(group, modules)
                    for name in available_methods(group, graded):
                        total = scores[group.name].get(name, torch.zeros(group.width))
                        scores[group.name][name] = total + _score(name, tensors)
        for group in groups:
            for name in available_methods(group, graded):
                scores[group.name][name] /= count
        model.zero_grad(set_to_none=True)
    return scores


def _score(method: str, tensors: ChannelTensors) -> Tensor:
    with calling(f"The saliency criterion '{method}' on '{tensors.name}'"):
        return METHODS[method].score(tensors)


def _backward_passes(model: nn.Module, workload: Workload, batches: int, batch: int) -> Iterator[None]:
    """Leave the gradients of one calibration batch after another in the parameters."""
    model.eval()
    for i, (inputs, targets) in enumerate(in_batches(workload.data.calibration, batch)):
        if i == batches:
            return
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


def _arrange(group: Group, modules: Mapping[str, nn.Module]) -> ChannelTensors:
    """Gather a group's weights and gradients by root channel."""
    arranged = ChannelTensors(group.name, group.width, [], [], [], [], [])
    for member in group.members:
        layer = modules[member.module]
        weight = getattr(layer, "weight", None)
        if weight is None:
            continue
        if member.kind == "batch norm":
            arranged.scales.append(_by_root(weight, 0, member, group.width))
            arranged.scales_grad.append(_by_root(weight.grad, 0, member, group.width))
        elif member.kind in ("convolution", "transposed convolution", "linear"):
            transposed = member.kind == "transposed convolution"
            dimension = int((member.side == "in") != transposed)
            gathered = _by_root(weight, dimension, member, group.width)
            if member.side == "in":
                arranged.consumers.append(gathered)
            else:
                arranged.producers.append(gathered)
                arranged.producers_grad.append(_by_root(weight.grad, dimension, member, group.width))
    return arranged


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
