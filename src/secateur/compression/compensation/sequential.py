"""Refit layer after layer: each one answers what the dense network's did, given what the layers before it now say.

Least squares on the dense network's Gram matrices takes what a layer reads for granted; behind a strong cut that is no longer what
it reads. Here the cut network runs once over calibration data, and each layer is refitted when the data reaches it, before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from secateur.compression.compensation.least_squares import regressed
from secateur.compression.compensation.readers import (
    Reader,
    answers,
    before_each,
    columns,
    kept_rows,
    matrix,
    overwrite,
    zeros_in,
)
from secateur.compression.compensation.sparse import made_up_for
from secateur.records import Plan
from secateur.workloads.pytrees import PyTree, call


@dataclass(frozen=True)
class DenseAnswers:
    """inputs: a batch of calibration data. outputs: layer name → (rows, out), what the dense layer says at drawn places."""

    inputs: PyTree
    outputs: Mapping[str, Tensor]


@torch.no_grad()
def dense_answers(model: nn.Module, names: Sequence[str], inputs: PyTree) -> DenseAnswers:
    """What the named layers answer; those that are called several times are left out."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda layer, _, output, name=name: outputs[name].append(answers(cast("Reader", layer), output))
        )
        for name in names
    ]
    try:
        call(model.eval(), inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return DenseAnswers(inputs, {name: calls[0] for name, calls in outputs.items() if len(calls) == 1})


@torch.no_grad()
def refit_in_order(module: nn.Module, dense: nn.Module, plan: Plan, given: DenseAnswers) -> PyTree:
    """Refit, in place and in one pass, every layer that is left and of which the dense answers are known.

    Returns the refitted network's outputs.
    """

    def refit(name: str, layer: Reader, inputs: Tensor) -> None:
        x = columns(layer, inputs).double()
        weight = matrix(layer).double()
        biases = int(layer.bias is not None)
        if biases:
            x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)
        kept = kept_rows(cast("Reader", dense.get_submodule(name)), plan.removed["out"].get(name, ()))
        y = given.outputs[name][:, kept].double().mT.reshape(*weight.shape[:2], -1)  # (groups, out, rows)
        rows, wrong = x.shape[1], y - weight @ x.mT
        gram = x.mT @ x / rows
        weight = weight + regressed(wrong @ x / rows, gram, biases)
        if name in plan.masked:
            weight = made_up_for(weight, gram, zeros_in(layer))
        overwrite(layer, weight.flatten(0, 1).float())

    with before_each(module.eval(), [name for name in given.outputs if not plan.leaves_out(name)], refit):
        return call(module, given.inputs)
