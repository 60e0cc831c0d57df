"""Optimizer steps over the train role: SGD with Nesterov momentum, a cosine schedule per step, mixed precision on CUDA."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.definition import RecoverDefinition
from secateur.records import Workload
from secateur.recovery.masks import NO_MASKS, Masks, MasksOf
from secateur.recovery.precision import Precision, precision_for
from secateur.recovery.terms import Batch, Term, total
from secateur.workloads.calls import calling
from secateur.workloads.pytrees import PyTree, call, filled, mapped, tensors
from secateur.workloads.samples import in_batches

MOMENTUM = 0.9
MOST_OVERFLOWS = 8
"""Losses in a row that float16 may overflow on; so many are no accident."""


@dataclass(frozen=True)
class Learner:
    """A network under training, with everything of it that changes at a step.

    masks: keep weights at zero.
    """

    student: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    device: str
    masks: Masks


def learner_for(student: nn.Module, settings: RecoverDefinition, device: str, masks: MasksOf = NO_MASKS) -> Learner:
    """student: on the device already. device: `cpu` or `cuda`. masks: made for it."""
    precision = precision_for(device)
    optimizer = torch.optim.SGD(
        _parameter_groups(student, settings.weight_decay), lr=settings.learning_rate, momentum=MOMENTUM, nesterov=True
    )
    scaler = torch.amp.GradScaler(device, enabled=precision.scaled)
    return Learner(student, optimizer, scaler, precision, device, masks(student))


@dataclass(frozen=True)
class Loop:
    """Trains a network on a workload's data, epoch by epoch."""

    learner: Learner
    workload: Workload
    terms: tuple[Term, ...]
    settings: RecoverDefinition

    def epoch(self, epoch: int, generator: torch.Generator) -> tuple[float, str | None]:
        """Mean loss, and why training must end, or None. generator: of the order of samples and of augmentation."""
        learner, settings = self.learner, self.settings
        size = len(self.workload.data.train)  # type: ignore[arg-type] # map-style
        loader = in_batches(
            self.workload.data.train,
            min(settings.batch, size),
            shuffle=True,
            drop_last=True,
            generator=generator,
            pinned=learner.device == "cuda",
        )
        summed, finite, overflows = 0.0, 0, 0
        learner.student.train()
        for step, (inputs, targets) in enumerate(loader):
            done, steps = epoch * len(loader) + step, settings.epochs * len(loader)
            _schedule(learner.optimizer, settings.learning_rate, done, steps)
            learner.masks.before(done / steps)
            buffers = [b.clone() for b in learner.student.buffers()] if learner.precision.scaled else []
            with calling(f"Training step {step + 1} of epoch {epoch + 1}"):
                loss = self._loss(inputs, targets, generator)
            value = loss.item()
            if math.isfinite(value):
                summed, finite, overflows = summed + value, finite + 1, 0
            elif learner.precision.scaled and overflows < MOST_OVERFLOWS:
                overflows += 1
            else:
                return value, (
                    f"the loss became {value} in epoch {epoch + 1}, step {step + 1}; the weights from before it stand"
                )
            _step(learner, loss)
            if overflows:
                for buffer, kept in zip(learner.student.buffers(), buffers, strict=True):
                    buffer.copy_(kept)  # batch norms have taken infinite activations into their statistics
        if not all(torch.isfinite(tensor).all() for tensor in learner.student.state_dict().values()):
            return (
                math.nan,
                f"a weight was no longer finite at the end of epoch {epoch + 1}; the weights from before it stand",
            )
        return summed / max(finite, 1), None

    def _loss(self, inputs: PyTree, targets: PyTree, generator: torch.Generator) -> Tensor:
        device, dtype = self.learner.device, self.learner.precision.dtype
        inputs, targets = mapped(lambda x: x.to(device, non_blocking=True), (inputs, targets))
        if self.workload.augment is not None:
            inputs = self._augmented(inputs, generator)
        inputs = mapped(lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, inputs)
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            outputs = call(self.learner.student, inputs)
            return total(self.terms, Batch(inputs, outputs, targets))

    def _augmented(self, inputs: PyTree, generator: torch.Generator) -> PyTree:
        """Where the model takes one tensor, the user's function sees that."""
        assert self.workload.augment is not None  # noqa: S101 # asked before
        only = tensors(inputs)
        if len(only) == 1:
            return filled(inputs, [self.workload.augment(only[0], generator)])
        return self.workload.augment(inputs, generator)


def _step(learner: Learner, loss: Tensor) -> None:
    learner.optimizer.zero_grad(set_to_none=True)
    learner.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch does not annotate it
    learner.scaler.unscale_(learner.optimizer)
    learner.masks.graded()
    learner.scaler.step(learner.optimizer)  # left out where a gradient is not finite
    learner.scaler.update()
    learner.masks.stepped()


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for weights, none for biases and norms."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _schedule(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))
