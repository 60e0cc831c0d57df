"""What inner layers of networks give: outputs, and how much each token attends to which."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateur.workloads.pytrees import PyTree, call

SOFTMAX = (torch.softmax, Tensor.softmax)


def layers_of(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The names of a model's layers that fit one of the patterns."""
    return [name for name, _ in model.named_modules() if name and any(fnmatchcase(name, p) for p in patterns)]


class Recorder:
    """Keeps what layers of a model gave last.

    outputs: by layer. attention: of those that are asked for, the last probabilities that were computed inside, (n, heads, queries,
    keys), before dropout.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], attending: Collection[str] = ()) -> None:
        """attending: those of the layers whose attention is asked for."""
        self.outputs: dict[str, object] = {}
        self.attention: dict[str, Tensor] = {}
        self._handles = []
        for name in layers:
            layer = model.get_submodule(name)
            if name in attending:
                look = _Look(partial(self.attention.__setitem__, name))
                self._handles += [
                    layer.register_forward_pre_hook(partial(_enter, look)),
                    layer.register_forward_hook(partial(_leave, look), always_call=True),
                ]
            self._handles.append(layer.register_forward_hook(partial(self._record, name)))

    def _record(self, name: str, _layer: nn.Module, _inputs: object, output: object) -> None:
        self.outputs[name] = output

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


class Pair:
    """Layers of a teacher that fit patterns and that the student still has: whole blocks may be gone."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, patterns: Sequence[str], attending: Collection[str] = ()
    ) -> None:
        left = {name for name, _ in student.named_modules()}
        self.layers = [name for name in layers_of(teacher, patterns) if name in left]
        self.own, self.taught = (Recorder(model, self.layers, attending) for model in (student, teacher))

    def close(self) -> None:
        """Leave both networks as they were."""
        self.own.close()
        self.taught.close()


@torch.no_grad()
def attending(model: nn.Module, inputs: PyTree) -> set[str]:
    """The layers that compute attention themselves, in no layer of their own. inputs: on the model's device."""
    names = layers_of(model, ["*"])
    recorder = Recorder(model, names, names)
    call(model, inputs)
    recorder.close()
    found = recorder.attention.keys()
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


@torch.no_grad()
def outputs_of(model: nn.Module, patterns: Sequence[str], inputs: PyTree) -> Iterator[tuple[str, object]]:
    """Layers that fit patterns, and what they give."""
    layers = layers_of(model, patterns)
    recorder = Recorder(model, layers)
    call(model, inputs)
    recorder.close()
    return ((name, recorder.outputs.get(name)) for name in layers)


class _Look(TorchFunctionMode):
    """Inside, probabilities of attention are passed on, computed by torch's function or written out."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if function is F.scaled_dot_product_attention:
            self._keep(probabilities(*args, **given))
        result = function(*args, **given)
        if function in SOFTMAX:
            self._keep(result)
        return result

    def _keep(self, found: Tensor) -> None:
        if found.dim() == 4:  # a softmax over anything else has other dimensions
            self._found(found)


def _enter(look: _Look, *_: object) -> None:
    look.__enter__()  # type: ignore[no-untyped-call] # torch does not annotate it


def _leave(look: _Look, *_: object) -> None:
    look.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def probabilities(
    query: Tensor,
    key: Tensor,
    _value: Tensor,
    attn_mask: Tensor | None = None,
    _dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 # torch's interface
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What `scaled_dot_product_attention` weighs values with: (n, heads, queries, keys). The arguments are its own.

    A token that may attend to nothing gets the mean over all keys.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    lowest = torch.finfo(scores.dtype).min
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, lowest)
    elif attn_mask is not None:
        scores = (scores + attn_mask).clamp_min(lowest)
    return scores.softmax(-1)
