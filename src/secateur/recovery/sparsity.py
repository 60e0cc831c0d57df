"""Penalties under which a network is trained before it is cut: they make channels small, which may then leave at little loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from secateur.compression.criteria.channel_tensors import weights_of
from secateur.definition import SparseTrainingDefinition
from secateur.records import Group
from secateur.recovery.loop import MOMENTUM
from secateur.recovery.terms import Term

LEAST_ENERGY = 1e-24
"""Of a channel, below which its norm has no slope: at nought it would be infinite."""
Penalty = Callable[[Group, nn.Module], Tensor | None]


def group_lasso(group: Group, model: nn.Module) -> Tensor | None:
    """Sum of the Euclidean norms of the channels that may leave: of all weights that write one, in all layers. None without such.

    Source: Wen et al. 2016, arXiv:1608.03665, eq. 2, for the filters of each layer; here a coupled group's filters are one.
    """
    modules = dict(model.named_modules())
    energies = [
        _by_root(rows(weight).flatten(1).square().sum(1), member.roots, member.indices, group.width)
        for member in group.members
        for side, weight, _, rows in weights_of(modules.get(member.module), member)
        if side == "out"
    ]
    if not energies:
        return None
    energy = torch.stack(energies).sum(0)[[*group.removable]]
    return energy.clamp_min(LEAST_ENERGY).sqrt().sum()


def bn_l1(group: Group, model: nn.Module) -> Tensor | None:
    """Sum of the absolute batch-norm scales of the channels that may leave. None without a batch norm that has scales.

    Source: Liu et al. 2017 (network slimming), arXiv:1708.06519, eq. 1.
    """
    norms = [member for member in group.members if member.kind == "batch norm"]
    scales = [
        _by_root(scale.abs(), member.roots, member.indices, group.width)
        for member in norms
        if isinstance(scale := model.get_submodule(member.module).weight, Tensor)
    ]
    return torch.stack(scales).sum(0)[[*group.removable]].sum() if scales else None


PENALTIES: dict[str, Penalty] = {"group_lasso": group_lasso, "bn_l1": bn_l1}
NEEDS = {"group_lasso": "a layer whose weights write its channels", "bn_l1": "a batch norm with scales"}


def penalised(settings: SparseTrainingDefinition, groups: Sequence[Group], model: nn.Module) -> list[Group]:
    """Those of the groups that the penalty says anything about."""
    return [group for group in groups if PENALTIES[settings.penalty](group, model) is not None]


def penalty_term(settings: SparseTrainingDefinition, groups: Sequence[Group], model: nn.Module) -> Term:
    """The penalty of a network under training as a share of its loss. groups: those that it says something about."""

    def penalty(_: object) -> Tensor:
        parts = [PENALTIES[settings.penalty](group, model) for group in groups]
        return torch.stack([part for part in parts if part is not None]).sum()

    return Term(settings.strength, penalty)


def reach(strength: float, learning_rate: float, steps: int) -> float:
    """By how much the penalty can shrink a channel, its norm or its scale, in a whole training: what the loss does not hold back.

    The slope of the penalty is its strength, the cosine schedule has half of the learning rate on average, and the momentum
    multiplies it.
    """
    return strength * learning_rate * steps / 2 / (1 - MOMENTUM)


def _by_root(values: Tensor, roots: Sequence[int], indices: Sequence[int], width: int) -> Tensor:
    """Sums by root channel, (width,), of one value for each channel of a layer."""
    at, taken = (torch.tensor(places, device=values.device) for places in (roots, indices))
    return values.new_zeros(width).index_add(0, at, values[taken])
