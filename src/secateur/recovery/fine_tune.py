"""Fine-tune a cut network, distilled from the dense one, resumable after any step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from secateur.compression.copies import copied
from secateur.compression.gates import gated_blocks
from secateur.definition import RecoverDefinition
from secateur.gating.prices import prices_of
from secateur.records import Workload
from secateur.recovery.answers import Answers
from secateur.recovery.attention import Attention
from secateur.recovery.batches import Batches, read
from secateur.recovery.checkpoint import Checkpoint
from secateur.recovery.curve import MOST
from secateur.recovery.hints import Hints
from secateur.recovery.loop import Learner, Length, Loop, Progress, compiled, learner_for, length_of
from secateur.recovery.masks import NO_MASKS, MasksOf
from secateur.recovery.randomness import seeded
from secateur.recovery.scores import score_on_search
from secateur.recovery.statistics import settle
from secateur.recovery.terms import Term, gate_terms, terms_of
from secateur.recovery.threads import threads_for
from secateur.workloads.pytrees import mapped

TOLD = 10.0
"""Seconds within an epoch after which it is told how far it is."""


@dataclass(frozen=True)
class Tuned:
    """module: on the CPU, float32, evaluation mode. stopped: why it ended early, or None. seconds: of training, all attempts.

    epochs: passes over the data; the last may not be whole. losses: mean of each. curve: loss by step, as (step, mean over the
    steps since the point before), at most `curve.MOST` points. scores: (step, score on search data), where they were wanted.
    """

    module: nn.Module
    epochs: int
    seconds: float
    stopped: str | None
    losses: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    scores: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Training:
    """How a training is done, beside its settings.

    device: `cpu` or `cuda`. seed: of the order of samples, augmentation and dropout. checkpoint: a file for the state after each
    epoch and now and then in between; where it exists, training goes on from there. on_epoch: called with the number of the
    finished epoch and its mean loss, and within an epoch every `TOLD` seconds with a fraction and the mean so far. masks: which
    weights are zero meanwhile, and in the end. penalty: what the loss is raised by, of the network under training. scored: whether
    the network is scored after each epoch, see `scores.score_on_search`. answers: of the teacher, for all trainings that share
    them; None to ask it at each step. clock: of seconds.
    """

    device: str = "cpu"
    seed: int = 0
    checkpoint: Path | None = None
    on_epoch: Callable[[float, float], None] = lambda _epoch, _loss: None
    masks: MasksOf = NO_MASKS
    penalty: Callable[[nn.Module], Term] | None = None
    scored: bool = False
    answers: Answers | None = None
    clock: Callable[[], float] = time.perf_counter


def fine_tune(
    student: nn.Module,
    teacher: nn.Module,
    workload: Workload,
    settings: RecoverDefinition,
    training: Training = Training(),
) -> Tuned:
    """Train a copy of the student on the train role, see `secateur.recovery.loop`; the teacher is left alone.

    On a CPU, the same seed gives the same weights, bit by bit, whatever process reads the samples, also where the training was
    killed at any time and goes on from its checkpoint; with `minutes` the time of each step counts too. The caller's random numbers
    are left alone. A loss or a weight that is not finite ends the training with the weights from before that epoch and a reason; in
    float16, where a single loss may overflow, only `loop.MOST_OVERFLOWS` in a row. In the end batch norms get statistics of their
    own, see `secateur.recovery.statistics`.
    """
    # Channels last is what the convolution kernels want: a third faster on CPUs (502 → 328 ms for 128 images, ResNet-20).
    prices = prices_of(student, workload.example_inputs) if settings.gates and gated_blocks(student) else None
    student = _on(student, training.device, torch.channels_last)
    teacher = _on(teacher, training.device, torch.channels_last).eval().requires_grad_(False)
    length = length_of(workload, settings)
    busy = threads_for(teacher, workload.example_inputs, length.batch) if training.device == "cpu" else nullcontext()
    inputs = mapped(lambda x: x.to(training.device), workload.example_inputs)
    with busy:
        with seeded(training.seed):
            maps = Attention(student, teacher, settings.distill, inputs)
            hints = Hints(student, teacher, workload, settings.distill, training.device)
            learner = learner_for(student, settings, training.device, training.masks, hints.projections)
            inner, answer = maps.terms + hints.terms, None
            if training.answers is not None and settings.distill and not inner:  # inner layers have to be seen at work
                answer = training.answers.of(teacher, workload, settings, training.device, learner.precision)
        terms = terms_of(workload, compiled(teacher, settings), settings.distill, answer) + inner
        if training.penalty is not None:
            terms = (*terms, training.penalty(student))
        if settings.gates and prices:
            terms += gate_terms(student, prices, settings.gates)
        with closing(maps), closing(hints):
            progress, stopped = _trained(learner, terms, workload, settings, training)
    return _tuned(student, progress, length, stopped)


def steps_of(workload: Workload, settings: RecoverDefinition) -> int:
    """Optimizer steps of a whole training whose length is not given in minutes."""
    steps = length_of(workload, settings).steps
    assert steps is not None  # noqa: S101 # the caller's
    return steps


def train_steps(
    student: nn.Module,
    teacher: nn.Module,
    workload: Workload,
    settings: RecoverDefinition,
    steps: int,
    training: Training = Training(),
) -> Tuned:
    """A short training of exactly so many steps, on the same samples for every network. None is worth compiling."""
    short = settings.lasting(training_steps=steps).model_copy(update={"compile": False})
    return fine_tune(student, teacher, workload, short, training)


def _trained(
    learner: Learner, terms: tuple[Term, ...], workload: Workload, settings: RecoverDefinition, training: Training
) -> tuple[Progress, str | None]:
    """How far it came, and why it ended early."""
    student, length = learner.student, length_of(workload, settings)
    state = Checkpoint(learner, training.checkpoint, settings.checkpoint_minutes, training.clock)
    progress, reason = state.progress, None
    batches = Batches(workload.data.train, length.batch, length.parts * length.in_a_pass, training.seed)
    ahead = read(batches, length.parts * progress.steps, settings.workers, pinned=training.device == "cuda")
    tell = _told(progress, length, training)

    def stepped() -> None:
        state.now_and_then()
        tell()

    with closing(ahead):
        loop = Loop(
            learner, workload, terms, settings, length, training.seed, ahead, batches.samples, progress, training.clock
        )
        while not loop.over:
            with seeded(training.seed):
                reason = loop.epoch(stepped)
            if reason is not None:
                break
            if training.scored:
                with seeded(training.seed):
                    score = score_on_search(student, workload, length.batch, training.device)
                progress.scores.add(score, MOST // settings.steps)
            state.finish()
            training.on_epoch(progress.epochs, progress.losses[-1])
        learner.end_with(state.before)
        if (
            reason is None or settings.ema is not None
        ):  # the statistics are of other weights than what stands in the end
            with seeded(training.seed):
                settle(student, workload, settings.batch, training.device)
    return progress, reason


def _told(progress: Progress, length: Length, training: Training) -> Callable[[], None]:
    """To be called after each step: tells now and then how far an epoch is."""
    last = progress.seconds

    def tell() -> None:
        nonlocal last
        if progress.seconds - last >= TOLD:
            last = progress.seconds
            training.on_epoch(progress.steps / length.in_a_pass, progress.mean)

    return tell


def _tuned(student: nn.Module, progress: Progress, length: Length, stopped: str | None) -> Tuned:
    scores = [(min(epoch * length.in_a_pass, progress.steps), score) for epoch, score in progress.scores.points()]
    return Tuned(
        _finished(student),
        progress.epochs,
        progress.seconds,
        stopped,
        progress.losses,
        tuple(progress.curve.points()),
        tuple(scores),
    )


def _finished(student: nn.Module) -> nn.Module:
    return _on(student, "cpu", torch.contiguous_format).eval()


def _on(module: nn.Module, device: str, layout: torch.memory_format) -> nn.Module:
    """A float32 copy of a module on a device, in a memory layout."""
    moved: nn.Module = copied(module).float().to(device)
    return moved.to(memory_format=layout)  # type: ignore[no-any-return, call-overload] # torch's annotation lacks this form
