"""Attention transfer: inner layers are to be strong where the dense model's are, whatever channels or heads they have lost."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn

from secateur.definition import DistillDefinition
from secateur.recovery.layers import Pair, Recorder, attending
from secateur.recovery.terms import Batch, Term
from secateur.workloads.pytrees import PyTree


def attention_map(features: Tensor) -> Tensor:
    """Mean of the squares over the channels, of unit length: (n, positions). features: (n, c, h, w) or (n, tokens, c).

    Source: Zagoruyko & Komodakis 2017, arXiv:1612.03928, section 3.1, F_sum². Of tokens we take the same mean.
    """
    energy = features.square().mean(1 if features.dim() == 4 else -1)
    return F.normalize(energy.flatten(1))


def head_map(probabilities: Tensor) -> Tensor:
    """Mean over the heads, of unit length for each query: (n, queries, keys). probabilities: (n, heads, queries, keys).

    Source: Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, eq. 7, who match head by head. Here heads have left, and those that stay
    take over from them, so that none of them is to do what it did alone.
    """
    return F.normalize(probabilities.mean(1), dim=-1)


class Attention:
    """A term of a student's loss, behind that of its logits. terms: none where no layer is named that both networks have."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, distill: DistillDefinition | None, example_inputs: PyTree
    ) -> None:
        """example_inputs: on the teacher's device."""
        patterns = distill.attention if distill else ()
        self._pair = Pair(student, teacher, patterns, attending(teacher, example_inputs) if patterns else ())
        self.terms: tuple[Term, ...] = ()
        if self._pair.layers and distill is not None:
            self.terms = (Term(distill.attention_weight, self._distance),)

    def _distance(self, _batch: Batch) -> Tensor:
        """Of what both gave last: the teacher has been asked for this batch's logits before."""
        pairs = (
            [_map(recorder, name) for recorder in (self._pair.own, self._pair.taught)] for name in self._pair.layers
        )
        distances = [(own - taught).square().mean() for own, taught in pairs if own is not None and taught is not None]
        return torch.stack(distances).mean()

    def close(self) -> None:
        """Leave both networks as they were."""
        self._pair.close()


def _map(recorder: Recorder, layer: str) -> Tensor | None:
    if layer in recorder.attention:
        return head_map(recorder.attention[layer])
    output = recorder.outputs.get(layer)
    return attention_map(output) if isinstance(output, Tensor) else None
