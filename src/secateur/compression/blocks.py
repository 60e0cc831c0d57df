"""Residual blocks: modules past whose layers their input goes on, so that the network is one without them too.

Which they are is found by experiment: with its parameters zero, a residual block gives what it reads. The attention inside a
transformer's block does not: in its place there would have to be zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateur.compression.costs import LayerCosts
from secateur.compression.proof import Proof
from secateur.records import Bypass, Group, Plan
from secateur.workloads.pytrees import PyTree, call, rows

NEAR = 0.4
"""How far what a block without parameters gives may be from what it reads, relative to that: a last norm still scales it.

A gate that gives half of what it reads when nothing opens or closes it is at 0.5.
"""


@dataclass(frozen=True)
class _Call:
    """What a module was given, and whether it gave one tensor that is like the first argument."""

    x: Tensor
    others: tuple[Any, ...]
    named: Mapping[str, Any]


def residual_blocks(model: nn.Module, example_inputs: PyTree, costs: LayerCosts, proof: Proof) -> tuple[Group, ...]:
    """The innermost residual blocks, each a group of its own, in network order.

    A block is a module with layers inside that is called once and gives a tensor of the shape and type of its first argument.
    All are proven together: the network runs without them, and blocks that hand on their input change it alike. Where that fails,
    each is proven alone first. model: in evaluation mode, on the CPU.
    """
    calls = _calls(model, rows(example_inputs, slice(1)))
    residual = [name for name, given in calls.items() if _passes(model.get_submodule(name), given)]
    innermost = [name for name in residual if not any(other.startswith(f"{name}.") for other in residual)]
    if _disproof(innermost, proof) is not None:
        innermost = [name for name in innermost if _disproof([name], proof) is None]
        if _disproof(innermost, proof) is not None:
            return ()
    return tuple(_as_group(name, model.get_submodule(name), costs) for name in innermost)


def _disproof(blocks: Sequence[str], proof: Proof) -> str | None:
    return proof.disproof(Plan(tuple(map(Bypass, blocks)))) if blocks else None


def _as_group(name: str, block: nn.Module, costs: LayerCosts) -> Group:
    parameters = sum(parameter.numel() for parameter in block.parameters())
    macs = costs.total - costs.after(Plan((Bypass(name),)))
    return Group(name, type(block).__name__, (), 1, (), parameters, macs, block=True)


@torch.no_grad()
def _calls(model: nn.Module, inputs: PyTree) -> dict[str, _Call]:
    """The calls of modules that may be blocks, by name."""
    begun: dict[str, list[_Call]] = {}
    alike: set[str] = set()

    def enter(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = args[0].clone() if args and isinstance(args[0], Tensor) else torch.empty(0)  # forward() may change it
        begun.setdefault(name, []).append(_Call(first, args[1:], named))

    def leave(name: str, output: object) -> None:
        x = begun[name][-1].x
        if isinstance(output, Tensor) and output.shape == x.shape and output.dtype == x.dtype and x.is_floating_point():
            alike.add(name)

    hooks = []
    for name, module in model.named_modules():
        if name and any(module.children()):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, args, named, name=name: enter(name, args, named), with_kwargs=True
                )
            )
            hooks.append(module.register_forward_hook(lambda _m, _i, output, name=name: leave(name, output)))
    try:
        call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: calls[0] for name, calls in begun.items() if name in alike and len(calls) == 1}


@torch.no_grad()
def _passes(block: nn.Module, given: _Call) -> bool:
    """Whether a module gives what it reads once its parameters, but those of norms over channels, are zero."""
    silent = dict(_silent(block))
    if not silent:
        return False
    try:
        output = functional_call(block, silent, (given.x.clone(), *given.others), dict(given.named))
    except Exception:  # noqa: BLE001 # whatever the user's forward raises for such weights
        return False
    return bool((output - given.x).norm() < NEAR * given.x.norm())


def _silent(block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, module in block.named_modules():
        own = dict(module.named_parameters(name, recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or any(p.dim() > 1 for p in own.values()):
            yield from ((key, torch.zeros_like(parameter)) for key, parameter in own.items())
