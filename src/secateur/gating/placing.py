"""Where gates go, and what they decide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from secateur.compression.gates import channel_axis, gated_blocks
from secateur.compression.plan import apply
from secateur.records import Gate, Group, Plan
from secateur.workloads.pytrees import PyTree, call, rows


@torch.no_grad()
def with_gates(plan: Plan, model: nn.Module, blocks: Sequence[Group], example_inputs: PyTree) -> Plan:
    """The plan, and a gate for each residual block that it leaves in the network. model: the dense one."""
    cut = apply(model, plan, shared=True)
    widths: dict[str, int] = {}

    def note(name: str, block: nn.Module, given: tuple[Tensor, ...]) -> None:
        widths[name] = given[0].shape[channel_axis(block, given[0])]

    for group in blocks:
        if not plan.leaves_out(group.name):
            cut.get_submodule(group.name).register_forward_pre_hook(partial(note, group.name))
    call(cut, rows(example_inputs, slice(1)))
    return Plan((*plan.steps, *(Gate(name, width) for name, width in widths.items())))


@torch.no_grad()
def decisions(model: nn.Module, inputs: PyTree) -> dict[str, Tensor]:
    """Which gates a model in evaluation mode opens for which samples: name of the block → (n,) of bool."""
    opened: dict[str, Tensor] = {}
    hooks = [
        block.norm.register_forward_hook(
            lambda _layer, _given, logit, name=name, block=block: opened.update({name: logit[:, 0] > block.threshold})
        )
        for name, block in gated_blocks(model).items()
    ]
    try:
        call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return opened
