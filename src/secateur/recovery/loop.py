"""Optimizer steps over the train role: SGD or AdamW, warm-up and a cosine schedule per step, mixed precision on CUDA."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.definition import RecoverDefinition
from secateur.records import Workload
from secateur.recovery.answers import placed
from secateur.recovery.average import Average
from secateur.recovery.curve import MOST, Curve
from secateur.recovery.masks import NO_MASKS, Masks, MasksOf
from secateur.recovery.precision import Precision, precision_for
from secateur.recovery.randomness import drawn_from, sow
from secateur.recovery.terms import Batch, Term, total
from secateur.workloads.calls import calling
from secateur.workloads.pytrees import PyTree, call, filled, mapped, tensors

MOMENTUM = 0.9
MOST_OVERFLOWS = 8
"""Losses in a row that float16 may overflow on; so many are no accident."""


@dataclass(frozen=True)
class Learner:
    """A network under training, with everything of it that changes at a step.

    network: the student as it is called, compiled or not. masks: keep weights at zero. average: of its weights, where that is what
    shall be kept. projections: are learnt with it and thrown away in the end.
    """

    student: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    device: str
    masks: Masks
    average: Average | None = None
    projections: nn.Module = field(default_factory=nn.ModuleDict)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What the optimizer changes, by a name that has no dot."""
        return {"model": self.student, "projections": self.projections}

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All that the optimizer changes."""
        return [(f"{part}.{name}", p) for part, module in self.modules.items() for name, p in module.named_parameters()]

    def result(self) -> dict[str, Tensor]:
        """A copy of what would be kept if training ended here: parameters, or their average, and buffers."""
        own = {name: p.detach() for name, p in self.student.named_parameters()}
        kept = own if self.average is None else self.average.tensors
        return {name: tensor.clone() for name, tensor in (*kept.items(), *self.student.named_buffers())}

    @torch.no_grad()
    def end_with(self, result: Mapping[str, Tensor]) -> None:
        """Training is over, and the student is to be this. Weights that masks want at zero are zero in the end."""
        for name, tensor in (*self.student.named_parameters(), *self.student.named_buffers()):
            tensor.copy_(result[name])
        self.masks.before(1.0)
        self.masks.stepped()


def learner_for(
    student: nn.Module,
    settings: RecoverDefinition,
    device: str,
    masks: MasksOf = NO_MASKS,
    projections: nn.Module | None = None,
) -> Learner:
    """student, projections: on the device already. device: `cpu` or `cuda`. masks: made for the student."""
    projections = projections or nn.ModuleDict()
    precision = precision_for(device, settings.precision)
    scaler = torch.amp.GradScaler(device, enabled=precision.scaled)
    average = None if settings.ema is None else Average(student, settings.ema)
    optimizer = _optimizer(nn.ModuleList([student, projections]), settings)
    return Learner(
        student, compiled(student, settings), optimizer, scaler, precision, device, masks(student), average, projections
    )


def compiled(model: nn.Module, settings: RecoverDefinition) -> nn.Module:
    """A model as it is called in training: compiled where that is wanted, with the weights of the model itself."""
    return torch.compile(model) if settings.compile else model  # type: ignore[return-value] # of a module it gives one


@dataclass
class Progress:
    """How far a training is, over all of its attempts.

    epochs: passes that are over. steps: of the optimizer. losses: mean of each pass. summed, finite: sum and number of the finite
    losses of the pass under way. overflows: losses in a row, up to now, that were not finite. curve: of the losses of all steps.
    scores: a curve of one score a pass, where they are wanted.
    """

    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    summed: float = 0.0
    finite: int = 0
    overflows: int = 0
    curve: Curve = field(default_factory=Curve)
    scores: Curve = field(default_factory=Curve)

    @property
    def mean(self) -> float:
        """Loss of the pass under way, up to now."""
        return self.summed / max(self.finite, 1)


@dataclass(frozen=True)
class Length:
    """How long a training is. batch: samples. parts: batches a step. in_a_pass: steps. steps, seconds: in all, one of them."""

    batch: int
    parts: int
    in_a_pass: int
    steps: int | None
    seconds: float | None

    def done(self, progress: Progress) -> float:
        """Share of the training that is over."""
        if self.steps is not None:
            return progress.steps / self.steps
        assert self.seconds is not None  # noqa: S101 # one of them
        return progress.seconds / self.seconds if progress.steps else 0.0  # one step is taken at least


def length_of(workload: Workload, settings: RecoverDefinition) -> Length:
    """Of a training on a workload's data."""
    batch, parts, in_a_pass = settings.sizes(len(workload.data.train))  # type: ignore[arg-type] # map-style
    steps = settings.training_steps if settings.epochs is None else settings.epochs * in_a_pass
    return Length(batch, parts, in_a_pass, steps, None if settings.minutes is None else 60 * settings.minutes)


@dataclass(frozen=True)
class Loop:
    """Trains a network pass by pass. batches: the next ones. samples: batch → the numbers of its samples. clock: of seconds."""

    learner: Learner
    workload: Workload
    terms: tuple[Term, ...]
    settings: RecoverDefinition
    length: Length
    seed: int
    batches: Iterator[Any]
    samples: Callable[[int], Sequence[int]]
    progress: Progress
    clock: Callable[[], float]

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.length.done(self.progress) >= 1

    def epoch(self, on_step: Callable[[], None]) -> str | None:
        """Steps to the end of a pass or of the training. Returns why training must end, or None.

        on_step: called after each step but the last. Global random numbers start anew at each step.
        """
        progress, student = self.progress, self.learner.student
        student.train()
        since = self.clock()
        while True:
            if reason := self._step():
                progress.seconds += self.clock() - since
                return reason
            progress.steps += 1
            progress.seconds, since = progress.seconds + (now := self.clock()) - since, now
            if self.over or progress.steps % self.length.in_a_pass == 0:
                break
            on_step()
        if not all(torch.isfinite(tensor).all() for tensor in student.state_dict().values()):
            epoch = progress.epochs + 1
            return f"a weight was no longer finite at the end of epoch {epoch}; the weights from before it stand"
        progress.losses = (*progress.losses, progress.mean)
        progress.epochs, progress.summed, progress.finite, progress.overflows = progress.epochs + 1, 0.0, 0, 0
        return None

    def _step(self) -> str | None:
        learner, progress, parts = self.learner, self.progress, self.length.parts
        done, step = self.length.done(progress), progress.steps % self.length.in_a_pass + 1
        _schedule(learner.optimizer, self.settings, done)
        learner.masks.before(done)
        buffers = [b.clone() for b in learner.student.buffers()] if learner.precision.scaled else []
        learner.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for number in range(parts * progress.steps, parts * (progress.steps + 1)):
            inputs, targets = next(self.batches)
            sow(self.seed, "step", number)
            with calling(f"Training step {step} of epoch {progress.epochs + 1}"):
                loss = self._loss(inputs, targets, number) / parts
            value += loss.item()
            if not math.isfinite(value) and not learner.precision.scaled:
                return self._stopped(value, step)
            learner.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        if math.isfinite(value):
            progress.summed, progress.finite, progress.overflows = progress.summed + value, progress.finite + 1, 0
        elif progress.overflows == MOST_OVERFLOWS:
            return self._stopped(value, step)
        else:
            progress.overflows += 1
        progress.curve.add(value, MOST // self.settings.steps)  # of a finalist that is cut in steps, in all of them
        _take(learner, self.settings.clip)
        if progress.overflows:
            for buffer, kept in zip(learner.student.buffers(), buffers, strict=True):
                buffer.copy_(kept)  # batch norms have taken infinite activations into their statistics
        return None

    def _stopped(self, loss: float, step: int) -> str:
        epoch = self.progress.epochs + 1
        return f"the loss became {loss} in epoch {epoch}, step {step}; the weights from before it stand"

    def _loss(self, inputs: PyTree, targets: PyTree, number: int) -> Tensor:
        device, dtype = self.learner.device, self.learner.precision.dtype
        inputs, targets = mapped(lambda x: x.to(device, non_blocking=True), (inputs, targets))
        if self.workload.augment is not None:
            inputs = self._augmented(inputs, drawn_from(self.seed, "augment", number))
        inputs = placed(inputs, device)
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            outputs = call(self.learner.network, inputs)
            return total(self.terms, Batch(inputs, outputs, targets, self.samples(number)))

    def _augmented(self, inputs: PyTree, generator: torch.Generator) -> PyTree:
        """Where the model takes one tensor, the user's function sees that."""
        assert self.workload.augment is not None  # noqa: S101 # asked before
        only = tensors(inputs)
        if len(only) == 1:
            return filled(inputs, [self.workload.augment(only[0], generator)])
        return self.workload.augment(inputs, generator)


def _take(learner: Learner, clip: float | None) -> None:
    """The optimizer's step. clip: the largest norm of its gradients."""
    learner.scaler.unscale_(learner.optimizer)
    learner.masks.graded()
    if clip is not None:
        nn.utils.clip_grad_norm_([p for _, p in learner.named_parameters()], clip)
    learner.scaler.step(learner.optimizer)  # left out where a gradient is not finite
    learner.scaler.update()
    learner.masks.stepped()
    if learner.average is not None:
        learner.average.stepped()


def _optimizer(model: nn.Module, settings: RecoverDefinition) -> torch.optim.Optimizer:
    groups = _parameter_groups(model, settings.weight_decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=MOMENTUM, nesterov=True)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for weights, none for biases and norms."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _schedule(optimizer: torch.optim.Optimizer, settings: RecoverDefinition, done: float) -> None:
    """A line up, then half a cosine. done: share of the training that is over."""
    warmup = settings.warmup
    share = done / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * share
