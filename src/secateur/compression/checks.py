"""What a model must do before its couplings are traced: run, return tensors, and say the same twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.compression.copies import check_hooked_weights, viewed
from secateur.errors import ModelError
from secateur.workloads.calls import raised
from secateur.workloads.pytrees import INPUT, OUTPUT, PyTree, call, length, mapped, named, tensors

ROUNDING = 1e-4
"""Largest difference between two outputs, relative to the largest output, that is rounding."""


def disagreement(outputs: PyTree, expected: PyTree, rounding: float = ROUNDING) -> float | None:
    """The difference between two outputs of one nesting where it is more than rounding, infinity for another shape; None elsewhere.

    rounding: relative to the largest entry of what is expected, for each tensor.
    """
    for actual, wanted in zip(tensors(outputs), tensors(expected), strict=True):
        if actual.shape != wanted.shape:
            return math.inf
        gap = (actual.double() - wanted.double()).abs().max().item()
        if not gap <= rounding * wanted.double().abs().max().item():  # NaN is no agreement
            return gap
    return None


def check_model(model: nn.Module, example_inputs: PyTree) -> None:
    """Everything that would make tracing or the proof fail for a reason of its own. model: in evaluation mode.

    Raises ModelError naming the layer.
    """
    check_hooked_weights(model)
    _check_statistics(model)
    check_forward(model, example_inputs)
    _check_repeatable(model, example_inputs)


def check_forward(model: nn.Module, example_inputs: PyTree) -> None:
    """One forward pass, with an eye on what tracing needs: tensors with a batch, one of them with a gradient path to the weights.

    Raises ModelError naming the innermost layer where it fails.
    """
    model = viewed(model).requires_grad_(True)
    entered: list[str] = []

    def leave(*_: object) -> None:  # a hook that returns something would replace the layer's output
        entered.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: entered.append(name)))
        hooks.append(module.register_forward_hook(leave))
    inputs = mapped(torch.clone, example_inputs)
    given = named(inputs, INPUT)
    versions = {name: x._version for name, x in given.items()}
    try:
        outputs = call(model, inputs)
    except (Exception, SystemExit) as error:  # whatever the user's forward raises becomes one clear error
        name = entered[-1] if entered else ""
        where = f"layer '{name}' ({type(model.get_submodule(name)).__name__})" if name else "the model"
        raise ModelError(f"The forward pass fails in {where}, which {raised(error)}.") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not tensors(outputs):
        raise ModelError(
            f"The model returns a {type(outputs).__name__} without a tensor. Wrap it so that forward() returns tensors, alone or "
            "in tuples, lists, dicts and dataclasses."
        )
    _check_batch(outputs, length(inputs))
    changed = [name for name, x in given.items() if x._version != versions[name]]
    if changed:
        raise ModelError(
            f"The model changes its input '{changed[0]}' in place, so a second call with the same tensor gives another output. "
            "Look for operations such as clamp_() or inplace=True on the input in forward(), or begin it with x = x.clone()."
        )
    if all(x.grad_fn is None for x in tensors(outputs)):
        raise ModelError(
            "The model's output carries no gradient, so its layers cannot be traced. Look for torch.no_grad(), .detach(), "
            ".data, argmax() or a conversion to numpy in forward()."
        )


def _check_batch(outputs: PyTree, samples: int) -> None:
    """Every output is told apart by sample, scored or compared."""
    try:
        tensors_by_name = named(outputs, OUTPUT)
    except ValueError as error:
        raise ModelError(f"Of the model's outputs, {error}. Rename one of them.") from error
    for name, x in tensors_by_name.items():
        if not x.dim() or len(x) != samples:
            raise ModelError(
                f"The model's {name} is {tuple(x.shape)} for {samples} samples; every tensor that forward() returns needs the "
                "batch as its first dimension. Leave it out of what forward() returns, or move its batch to the front."
            )


def _check_statistics(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        for statistic in ("running_mean", "running_var"):
            values = getattr(layer, statistic, None)
            if isinstance(values, Tensor) and not torch.isfinite(values).all():
                count = int((~torch.isfinite(values)).sum())
                raise ModelError(
                    f"The batch norm '{name}' holds NaN or infinity in {count} of {values.numel()} entries of its {statistic}, so "
                    "the model's outputs mean nothing. Its training diverged, or the checkpoint is damaged."
                )


@torch.no_grad()
def _check_repeatable(model: nn.Module, example_inputs: PyTree) -> None:
    """The same input twice: the proof compares networks, and must not take chance for a difference between them."""
    first, second = (call(model, example_inputs) for _ in range(2))
    if not all(torch.isfinite(x).all() for x in tensors(first)):
        where = _first_layer(model, example_inputs, lambda a, _: not bool(torch.isfinite(a).all()))
        raise ModelError(f"The model's output for the example inputs holds NaN or infinity{where}.")
    gap = disagreement(second, first)
    if gap is not None:
        where = _first_layer(model, example_inputs, lambda a, b: a.shape != b.shape or not torch.allclose(a, b))
        raise ModelError(
            f"Two runs of the dense model on the same input differ by {gap:.2g}{where}, although it is in evaluation mode. Look "
            "for dropout that stays active (F.dropout without training=self.training), random numbers or counters in forward()."
        )


def _first_layer(model: nn.Module, example_inputs: PyTree, wrong: Callable[[Tensor, Tensor], bool]) -> str:
    """The first layer to finish whose outputs of two runs are wrong, as a part of a sentence."""
    runs = []
    for _ in range(2):
        with _outputs_by_layer(model) as seen:
            call(model, example_inputs)
        runs.append(seen)
    for name, output in runs[0].items():
        if name and name in runs[1] and wrong(output, runs[1][name]):
            return f", first behind layer '{name}' ({type(model.get_submodule(name)).__name__})"
    return ""


@contextmanager
def _outputs_by_layer(model: nn.Module) -> Any:
    seen: dict[str, Tensor] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            seen.setdefault(name, output.clone())

    hooks = [
        layer.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, layer in model.named_modules()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
