"""A network that is cut a second time: its groups as they are by then, and both plans as one of the original."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from secateur.compression.masks import by_row, mask_of, zeros_of
from secateur.compression.plan import united
from secateur.compression.removal import width_of
from secateur.records import Bypass, Group, Mask, Member, Plan, Remove, Side, Weights

SIDES: tuple[Side, Side] = ("out", "in")


def after(group: Group, plan: Plan) -> Group | None:
    """A group in the network that a plan has cut, by the numbers that channels have there; None where nothing of it is left.

    Its costs are still those of the original.
    """
    if group.block:
        return None if plan.leaves_out(group.name) else group
    there = [member for member in group.members if not plan.leaves_out(member.module)]
    gone = {root for member in there for root in _lost(member, plan)}
    roots = [root for root in range(group.width) if root not in gone]
    weights = [own for own in group.weights if not plan.leaves_out(own.layer)]
    left = replace(
        group,
        members=tuple(_member(member, roots, plan) for member in there),
        width=len(roots) if there else group.width,
        removable=tuple(roots.index(root) for root in group.removable if root not in gone) if there else (),
        weights=tuple(_weights(own, plan) for own in weights),
    )
    return left if left.members or left.weights else None


def composed(model: nn.Module, first: Plan, then: Plan) -> Plan:
    """One plan of the original network for two: the second one edits what the first one has left, by the numbers there.

    model: the original.
    """
    removals = [_originally(step, model, first) for step in then.removals]
    blocks = [step for step in then.steps if isinstance(step, Bypass)]
    structure = united((*(step for step in first.steps if not isinstance(step, Mask)), *blocks, *removals))
    masks = [_mask(name, model, first, then, structure) for name in dict.fromkeys((*first.masked, *then.masked))]
    return united((*structure.steps, *masks))


def _mask(name: str, model: nn.Module, first: Plan, then: Plan, structure: Plan) -> Mask:
    """What both plans set to zero in a layer, but for what leaves anyway."""
    layer = model.get_submodule(name)
    zeros = torch.zeros_like(by_row(layer, cast("Tensor", layer.weight)), dtype=torch.bool)
    every, inputs, kernel = zeros.shape
    rows = set[int]()
    kept = [_kept(width, first.removed[side].get(name, ())) for width, side in zip((every, inputs), SIDES, strict=True)]
    for plan, (there, read) in ((first, (range(every), range(inputs))), (then, kept)):
        for mask in plan.masks:
            if mask.layer == name:
                chosen = [there[row] for row in mask.rows]
                gone = zeros_of(mask, len(read) * kernel).view(len(chosen), len(read), kernel)
                zeros[torch.tensor(chosen)[:, None], torch.tensor(read)] |= gone
                rows.update(chosen)
    zeros[list(structure.removed["out"].get(name, ()))] = False
    zeros[:, list(structure.removed["in"].get(name, ()))] = False
    listed = tuple(sorted(rows))
    return mask_of(Weights(name, listed, inputs, kernel), zeros[list(listed)])


def _lost(member: Member, plan: Plan) -> list[int]:
    gone = set(plan.removed[member.side].get(member.module, ()))
    return [root for root, index in zip(member.roots, member.indices, strict=True) if index in gone]


def _member(member: Member, roots: Sequence[int], plan: Plan) -> Member:
    """With the roots and indices that are left, counted anew. roots: those that are left."""
    gone = plan.removed[member.side].get(member.module, ())
    pairs = [
        (bisect_left(roots, root), index - bisect_left(gone, index))
        for root, index in zip(member.roots, member.indices, strict=True)
        if root in set(roots)
    ]
    return replace(member, roots=tuple(root for root, _ in pairs), indices=tuple(index for _, index in pairs))


def _weights(own: Weights, plan: Plan) -> Weights:
    lost = plan.removed["out"].get(own.layer, ())
    rows = tuple(row - bisect_left(lost, row) for row in own.rows if row not in set(lost))
    return replace(own, rows=rows, inputs=own.inputs - len(plan.removed["in"].get(own.layer, ())))


def _originally(step: Remove, model: nn.Module, first: Plan) -> Remove:
    kept = _kept(width_of(model, step.layer, step.side), first.removed[step.side].get(step.layer, ()))
    return replace(step, indices=tuple(kept[index] for index in step.indices))


def _kept(width: int, gone: Sequence[int]) -> list[int]:
    lost = set(gone)
    return [index for index in range(width) if index not in lost]
