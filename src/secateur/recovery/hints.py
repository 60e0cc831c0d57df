"""Hints: inner layers are to give what the dense model's give, seen through a projection where channels are gone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.definition import DistillDefinition
from secateur.errors import EvaluationFailed
from secateur.records import Workload
from secateur.recovery.layers import Pair
from secateur.recovery.terms import Batch, Term
from secateur.workloads.portions import fitting
from secateur.workloads.pytrees import call, mapped, rows
from secateur.workloads.roles import collect

SAMPLES = 64
"""Calibration samples that projections are fitted to before they are learnt, fewer where layers give much."""
RIDGE = 1e-6
"""Of the mean square of the student's channels: some of them may always be nought."""


def channel_axis(own: torch.Size, taught: torch.Size) -> int | None:
    """The one axis behind the first in which two shapes differ; None where they do not. Raises ValueError where more differs."""
    if len(own) == len(taught):
        differing = [axis for axis, sizes in enumerate(zip(own, taught, strict=True)) if sizes[0] != sizes[1]]
        if not differing:
            return None
        if len(differing) == 1 and differing[0] > 0:
            return differing[0]
    raise ValueError(f"{tuple(own)} in place of {tuple(taught)}")


def relative_distance(own: Tensor, taught: Tensor) -> Tensor:
    """Mean squared distance, of the mean square of what is taught: a scalar that does not depend on the layer's scale."""
    own, taught = own.float(), taught.float()
    return (own - taught).square().mean() / taught.square().mean().clamp_min(torch.finfo(taught.dtype).tiny)


class Hints:
    """A term of a student's loss, behind that of its logits.

    terms: none where no layer is named that both networks have. projections: learnt with the student and of no use behind it. They
    are linear maps over the channels (1×1 convolutions of feature maps), from the student's to the teacher's; where no channel is
    gone there is none. They start as the least-squares fit on calibration samples, so that the student is taught from the first
    step on what is missing.

    Source: Romero et al. 2015 (FitNets), arXiv:1412.6550, eq. 3. There a hint comes before the training proper; here it is a term
    of its loss, each layer relative to the teacher's mean square.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, workload: Workload, distill: DistillDefinition | None, device: str
    ) -> None:
        """device: that of both networks. Raises EvaluationFailed where a layer differs in more than its channels."""
        self._pair = Pair(student, teacher, distill.hints if distill else ())
        self.projections, self._axes = nn.ModuleDict(), dict[str, int]()
        self.terms: tuple[Term, ...] = ()
        if self._pair.layers and distill is not None:
            self._fit(student, teacher, workload, device)
            self.terms = (Term(distill.hints_weight, self._distance),)

    @torch.no_grad()
    def _fit(self, student: nn.Module, teacher: nn.Module, workload: Workload, device: str) -> None:
        inputs, _ = collect(workload.data.calibration, SAMPLES)
        inputs = mapped(lambda x: x.to(device), inputs)
        inputs = rows(inputs, slice(fitting(teacher, inputs)))
        training = student.training
        for model in (student.eval(), teacher):
            call(model, inputs)
        student.train(training)
        for layer in self._pair.layers:
            own, taught = self._given(layer)
            try:
                axis = channel_axis(own.shape, taught.shape)
            except ValueError as error:
                raise EvaluationFailed(
                    f"recover.distill.hints: '{layer}' gives {error}: a projection makes up for channels alone. Leave the "
                    "layer out."
                ) from error
            if axis is not None:
                self._axes[layer] = axis
                self.projections[_key(layer)] = fitted(own.movedim(axis, -1), taught.movedim(axis, -1))

    def _given(self, layer: str) -> tuple[Tensor, Tensor]:
        own, taught = self._pair.own.outputs[layer], self._pair.taught.outputs[layer]
        assert isinstance(own, Tensor) and isinstance(taught, Tensor)  # noqa: S101, PT018 # checked before the run
        return own, taught

    def _distance(self, _batch: Batch) -> Tensor:
        """Of what both gave last: the teacher has been asked for this batch's logits before. Mean over the layers."""
        distances = []
        for layer in self._pair.layers:
            own, taught = self._given(layer)
            if layer in self._axes:
                axis = self._axes[layer]
                own, taught = self.projections[_key(layer)](own.movedim(axis, -1)), taught.movedim(axis, -1)
            distances.append(relative_distance(own, taught))
        return torch.stack(distances).mean()

    def close(self) -> None:
        """Leave both networks as they were."""
        self._pair.close()


def fitted(own: Tensor, taught: Tensor) -> nn.Linear:
    """The linear layer from (…, c) to (…, d) with the least squared error, on the device of both; the same for the same input."""
    x, y = (part.flatten(0, -2).double().cpu() for part in (own, taught))
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    gram = x.T @ x
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram + ridge, x.T @ y).T.to(own)
    layer = nn.Linear(own.shape[-1], taught.shape[-1], device="meta")
    layer.weight, layer.bias = nn.Parameter(solution[:, :-1].contiguous()), nn.Parameter(solution[:, -1].contiguous())
    return layer


def _key(layer: str) -> str:
    """Names of a ModuleDict have no dots."""
    return layer.replace(".", "/")
