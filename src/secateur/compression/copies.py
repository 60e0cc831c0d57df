"""Copies of the user's module: its tensors may be shared where nobody changes them, and what cannot be copied says why."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateur.errors import ModelError, first_line


def copied(model: nn.Module, shared: Collection[Tensor] = ()) -> nn.Module:
    """A deep copy of a module. shared: tensors that the copy takes from the original instead of copying them.

    Raises ModelError where Python cannot copy the module, naming the layer and what to do.
    """
    return _copied(model, {id(tensor): tensor for tensor in shared})


def viewed(model: nn.Module) -> nn.Module:
    """A copy whose parameters are its own and lie in the original's memory: for whoever puts back what it changes there.

    Buffers are copied. Raises what `copied` raises.
    """
    return _copied(model, {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()})


def _copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever the user's attributes raise when they are copied
        check_hooked_weights(model)
        raise ModelError(_why_not(model, error)) from error


def tie(copy_: nn.Module, original: nn.Module) -> None:
    """Parameters that are one in the original become one in a cut copy, in place, where they are still equal there."""
    first: dict[int, str] = {}
    copies = dict(copy_.named_parameters(remove_duplicate=False))
    for name, parameter in original.named_parameters(remove_duplicate=False):
        kept, other = copies.get(first.setdefault(id(parameter), name)), copies.get(name)
        if kept is not other and kept is not None and other is not None and torch.equal(kept, other):
            owner, _, attribute = name.rpartition(".")
            setattr(copy_.get_submodule(owner), attribute, kept)


def check_hooked_weights(model: nn.Module) -> None:
    """Raises ModelError where a hook recomputes a layer's weight before each call: such a weight cannot be cut or copied."""
    remedies = [f"{remedy} in build_model" for _, remedy in _hooked(model)]
    if remedies:
        names = ", ".join(f"'{name}'" for name, _ in list(_hooked(model))[:5])
        raise ModelError(
            f"The weights of {names} are recomputed by a hook before each call, so they cannot be cut. "
            f"Make them plain: {remedies[0]}{'' if len(remedies) == 1 else ', and so on for each layer'}."
        )


def _hooked(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Layers whose weight torch's older tools recompute in a hook, each with the call that makes it a plain parameter."""
    for name, layer in model.named_modules():
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield name, f"torch.nn.utils.remove_weight_norm(model.get_submodule('{name}'))"
            elif isinstance(hook, SpectralNorm):
                yield name, f"torch.nn.utils.remove_spectral_norm(model.get_submodule('{name}'))"
            elif isinstance(hook, BasePruningMethod):
                yield name, f"torch.nn.utils.prune.remove(model.get_submodule('{name}'), '{hook._tensor_name}')"


def _why_not(model: nn.Module, error: Exception) -> str:
    for name, layer in model.named_modules():
        for attribute, value in vars(layer).items():
            if attribute.startswith("_") and attribute in vars(nn.Module()):
                continue
            try:
                copy.deepcopy(value)
            except Exception as inner:  # noqa: BLE001 # the same as above
                where = f"'{attribute}' of layer '{name}'" if name else f"its attribute '{attribute}'"
                return (
                    f"The model cannot be copied: {where} (a {type(value).__name__}) raises {type(inner).__name__}: "
                    f"{first_line(inner)}. Create it inside forward(), or give the layer a __deepcopy__ method."
                )
    return (
        f"The model cannot be copied: {type(error).__name__}: {first_line(error)}. copy.deepcopy(model) has to work; look for "
        "hooks and attributes that hold open files, locks or generators."
    )
