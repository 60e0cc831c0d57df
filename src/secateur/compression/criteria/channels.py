"""Criteria of channels, one function each: one group's tensors by root channel → one number a channel; the lowest go first."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from secateur.compression.criteria.channel_tensors import ChannelTensors
from secateur.compression.criteria.obs import losses_in_order


def _sum(parts: Iterable[Tensor], channels: int) -> Tensor:
    total = torch.zeros(channels)
    for part in parts:
        total = total + part
    return total


def _mean(parts: Sequence[Tensor], channels: int) -> Tensor:
    """Over all entries of a part, then over parts; 0 where no part has entries."""
    return _sum((part.mean(1) for part in parts), channels) / max(1, len(parts))


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


def hessian(tensors: ChannelTensors) -> Tensor:
    """Second-order change of the loss if the channel were removed, ½ (Σ w·g)² over all weights that read it. (channels,), ≥ 0.

    In units of the loss, of one sample, so that it takes a backward pass a sample; their mean ranks. At a minimum the mean gradient
    vanishes, and what is left of a removal is ½ of the curvature along it, which the squared gradients of single samples estimate
    (the Fisher information; exact in expectation for a log-likelihood whose model is right). `taylor` squares the gradient of a
    batch of 32, in which just these differences between samples average out. Σ w·g is the derivative along the removal, as there.

    Source: Theis et al. 2018 (Fisher pruning), arXiv:1801.05787, for feature maps; summed over coupled layers before it is squared,
    as in Liu et al. 2021 (group Fisher), arXiv:2108.00708. Neither their division by what is saved nor their steps of training in
    between are ours.
    """
    return taylor(tensors).square() / 2


def activation(tensors: ChannelTensors) -> Tensor:
    """Mean absolute value of the channel where layers read it, over samples, places and layers. (channels,), ≥ 0.

    Source: the activation criterion of Molchanov et al. 2017, arXiv:1611.06440, section 2.2; we take absolute values, since not all
    functions are positive, and look where the channel is read: behind batch norm, activation function and pooling.
    """
    return _mean(tensors.magnitudes, tensors.channels)


def apoz(tensors: ChannelTensors) -> Tensor:
    """How often the channel is not zero where layers read it: 1 - APoZ, over samples, places and layers. (channels,), in [0, 1].

    It tells channels apart behind a ReLU; behind functions that hardly give zeros all get 1, and pooling hides zeros.

    Source: Hu et al. 2016 (network trimming), arXiv:1607.03250, eq. 1, the average percentage of zeros; we look where the channel
    is read.
    """
    return _mean(tensors.nonzeros, tensors.channels)


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

    (channels,), ≥ 0. Channels go one after the other, the cheapest next. See `secateur.compression.criteria.obs`.
    """
    return losses_in_order(tensors.readings, tensors.removable, tensors.channels)


def random(tensors: ChannelTensors) -> Tensor:
    """Uniform noise, the same for a group's name at every run: the control arm. (channels,), in [0, 1)."""
    return torch.rand(tensors.channels, generator=torch.Generator().manual_seed(zlib.crc32(tensors.name.encode())))
