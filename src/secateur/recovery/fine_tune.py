"""Fine-tune a cut network, distilled from the dense one, resumable after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Subset

from secateur.compression.copies import copied
from secateur.compression.gates import gated_blocks
from secateur.definition import RecoverDefinition
from secateur.gating.prices import prices_of
from secateur.records import Workload
from secateur.recovery.checkpoint import Checkpoint
from secateur.recovery.loop import Loop, learner_for
from secateur.recovery.masks import NO_MASKS, MasksOf
from secateur.recovery.randomness import seeded
from secateur.recovery.statistics import settle
from secateur.recovery.terms import Term, gate_terms, terms_of
from secateur.recovery.threads import threads_for


@dataclass(frozen=True)
class Tuned:
    """module: on the CPU, float32, evaluation mode. stopped: why it ended early, or None. seconds: of training, all attempts.

    losses: mean of each finished epoch.
    """

    module: nn.Module
    epochs: int
    seconds: float
    stopped: str | None
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Training:
    """How a training is done, beside its settings.

    device: `cpu` or `cuda`. seed: of the order of samples, augmentation and dropout. checkpoint: a file for the state after each
    epoch; where it exists, training goes on from there. on_epoch: called with the number of the finished epoch and its mean loss.
    masks: which weights are zero meanwhile, and in the end. penalty: what the loss is raised by, of the network under training.
    """

    device: str = "cpu"
    seed: int = 0
    checkpoint: Path | None = None
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None
    masks: MasksOf = NO_MASKS
    penalty: Callable[[nn.Module], Term] | None = None


def fine_tune(
    student: nn.Module,
    teacher: nn.Module,
    workload: Workload,
    settings: RecoverDefinition,
    training: Training = Training(),
) -> Tuned:
    """Train a copy of the student on the train role, see `secateur.recovery.loop`; the teacher is left alone.

    On a CPU, the same seed gives the same weights, bit by bit, also where the training was killed after any epoch and goes on
    from its checkpoint; the caller's random numbers are left alone. A loss or a weight that is not finite ends the training with
    the weights from before that epoch and a reason; in float16, where a single loss may overflow, only `loop.MOST_OVERFLOWS` in a
    row. In the end batch norms get statistics of their own, see `secateur.recovery.statistics`.
    """
    # Channels last is what the convolution kernels want: a third faster on CPUs (502 → 328 ms for 128 images, ResNet-20).
    prices = prices_of(student, workload.example_inputs) if settings.gates and gated_blocks(student) else None
    student = _on(student, training.device, torch.channels_last)
    teacher = _on(teacher, training.device, torch.channels_last).eval().requires_grad_(False)
    learner = learner_for(student, settings, training.device, training.masks)
    state = Checkpoint(learner, training.checkpoint)
    terms = terms_of(workload, teacher, settings.distill)
    if training.penalty is not None:
        terms = (*terms, training.penalty(student))
    if settings.gates and prices:
        terms += gate_terms(student, prices, settings.gates)
    loop = Loop(learner, workload, terms, settings)
    busy = threads_for(teacher, workload.example_inputs, settings.batch) if training.device == "cpu" else nullcontext()
    with busy:
        for epoch in range(state.epoch, settings.epochs):
            started = time.perf_counter()
            before = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
            with seeded(training.seed * 1000 + epoch):  # of its own, so that it is the same after a restart
                mean, reason = loop.epoch(epoch, torch.Generator().manual_seed(training.seed * 1000 + epoch))
            if reason is not None:
                student.load_state_dict(before)
                learner.masks.before(1.0)
                seconds = state.seconds + time.perf_counter() - started
                return Tuned(_finished(student), epoch, seconds, reason, state.losses)
            state.finish(epoch + 1, time.perf_counter() - started, mean)
            training.on_epoch(epoch + 1, mean)
        learner.masks.before(1.0)
        with seeded(training.seed * 1000 + settings.epochs):
            settle(student, workload, settings.batch, training.device)
    return Tuned(_finished(student), settings.epochs, state.seconds, None, state.losses)


def steps_of(workload: Workload, settings: RecoverDefinition) -> int:
    """Optimizer steps of a whole training."""
    size = len(workload.data.train)  # type: ignore[arg-type] # map-style
    return settings.epochs * (size // min(settings.batch, size))


def train_steps(
    student: nn.Module,
    teacher: nn.Module,
    workload: Workload,
    settings: RecoverDefinition,
    steps: int,
    training: Training = Training(),
) -> Tuned:
    """A short training of exactly so many steps, on samples drawn once (the same for every network)."""
    size = len(workload.data.train)  # type: ignore[arg-type] # map-style
    batch = min(settings.batch, size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    drawn = [order[i % size] for i in range(steps * batch)]
    few = replace(workload, data=replace(workload.data, train=Subset(workload.data.train, drawn)))
    short = settings.model_copy(update={"epochs": 1, "batch": batch})
    return fine_tune(student, teacher, few, short, training)


def _finished(student: nn.Module) -> nn.Module:
    return _on(student, "cpu", torch.contiguous_format).eval()


def _on(module: nn.Module, device: str, layout: torch.memory_format) -> nn.Module:
    """A float32 copy of a module on a device, in a memory layout."""
    moved: nn.Module = copied(module).float().to(device)
    return moved.to(memory_format=layout)  # type: ignore[no-any-return, call-overload] # torch's annotation lacks this form
