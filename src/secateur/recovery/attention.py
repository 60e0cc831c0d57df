"""Attention transfer: inner layers are to be strong where the dense model's are, whatever channels they have lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn

from secateur.definition import DistillDefinition
from secateur.recovery.terms import Batch, Term
from secateur.workloads.pytrees import PyTree, call


def layers_of(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The names of a model's layers that fit one of the patterns."""
    return [name for name, _ in model.named_modules() if name and any(fnmatchcase(name, p) for p in patterns)]


def attention_map(features: Tensor) -> Tensor:
    """Mean of the squares over the channels, of unit length: (n, positions). features: (n, c, h, w) or (n, tokens, c).

    Source: Zagoruyko & Komodakis 2017, arXiv:1612.03928, section 3.1, F_sum². Of tokens we take the same mean.
    """
    energy = features.square().mean(1 if features.dim() == 4 else -1)
    return F.normalize(energy.flatten(1))


class Recorder:
    """Keeps what layers of a model gave last."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self.outputs: dict[str, object] = {}
        self._handles = [
            model.get_submodule(name).register_forward_hook(partial(self._record, name)) for name in layers
        ]

    def _record(self, name: str, _layer: nn.Module, _inputs: object, output: object) -> None:
        self.outputs[name] = output

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


class Attention:
    """A term of a student's loss, behind that of its logits. terms: none where no layer is named that both networks have."""

    def __init__(self, student: nn.Module, teacher: nn.Module, distill: DistillDefinition | None) -> None:
        patterns = distill.attention if distill else ()
        left = {name for name, _ in student.named_modules()}  # whole blocks may be gone
        layers = [name for name in layers_of(teacher, patterns) if name in left]
        self._own, self._taught = Recorder(student, layers), Recorder(teacher, layers)
        self.terms: tuple[Term, ...] = ()
        if layers and distill is not None:
            self.terms = (Term(distill.attention_weight, self._distance),)

    def _distance(self, _batch: Batch) -> Tensor:
        """Of what both gave last: the teacher has been asked for this batch's logits before."""
        distances = [
            (attention_map(own) - attention_map(taught)).square().mean()
            for name, taught in self._taught.outputs.items()
            if isinstance(own := self._own.outputs.get(name), Tensor) and isinstance(taught, Tensor)
        ]
        return torch.stack(distances).mean()

    def close(self) -> None:
        """Leave both networks as they were."""
        self._own.close()
        self._taught.close()


@torch.no_grad()
def unmapped(model: nn.Module, patterns: Sequence[str], example_inputs: PyTree) -> Iterator[tuple[str, str]]:
    """Layers without an attention map, and what they give."""
    recorder = Recorder(model, layers_of(model, patterns))
    call(model, example_inputs)
    recorder.close()
    for name in layers_of(model, patterns):
        output = recorder.outputs.get(name)
        if not isinstance(output, Tensor) or output.dim() not in (3, 4):
            yield name, f"{tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
