"""Fine-tune a cut network, distilled from the dense one, resumable after every epoch."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import Subset

from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.files import write
from secateur.records import Workload
from secateur.workloads.calls import calling
from secateur.workloads.roles import as_tuple
from secateur.workloads.samples import in_batches


@dataclass(frozen=True)
class Tuned:
    """module: on the CPU, float32, evaluation mode. stopped: why it ended early, or None. seconds: of training, all attempts."""

    module: nn.Module
    epochs: int
    seconds: float
    stopped: str | None


def fine_tune(
    student: nn.Module,
    teacher: nn.Module,
    workload: Workload,
    settings: RecoverDefinition,
    *,
    device: str = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> Tuned:
    """Train the student on the train role: SGD with Nesterov momentum, cosine schedule per step, mixed precision on CUDA.

    checkpoint: a file for the state after each epoch; where it exists, training goes on from there. on_epoch: called with the
    number of the finished epoch and its mean loss. A loss or a weight that is not finite ends the training with the
    weights from before that epoch and a reason.
    """
    # Channels last is what the convolution kernels want: a third faster on CPUs (502 → 328 ms for 128 images, ResNet-20).
    student = _on(student, device, torch.channels_last)
    teacher = _on(teacher, device, torch.channels_last).eval().requires_grad_(False)
    optimizer = torch.optim.SGD(
        _parameter_groups(student, settings.weight_decay), lr=settings.learning_rate, momentum=0.9, nesterov=True
    )
    state = _State(student, optimizer, checkpoint)
    size = len(workload.data.train)  # type: ignore[arg-type] # map-style
    batch = min(settings.batch, size)
    steps = settings.epochs * (size // batch)
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    for epoch in range(state.epoch, settings.epochs):
        started, total, reason = time.perf_counter(), 0.0, None
        before = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)  # the same order after a restart
        loader = in_batches(workload.data.train, batch, shuffle=True, drop_last=True, generator=generator)
        student.train()
        for step, (inputs, targets) in enumerate(loader):
            _schedule(optimizer, settings.learning_rate, epoch * len(loader) + step, steps)
            images = tuple(x.to(device) for x in as_tuple(inputs))
            if workload.augment is not None:
                images = (workload.augment(images[0], generator), *images[1:])
            images = tuple(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in images)
            training = f"Training step {step + 1} of epoch {epoch + 1}"
            with calling(training), torch.autocast(device, dtype=torch.float16, enabled=device == "cuda"):
                loss = _loss(student, teacher, images, targets.to(device), workload, settings.distill)
            if not torch.isfinite(loss):
                reason = f"the loss became {loss.item()} in epoch {epoch + 1}, step {step + 1}; the weights from before it stand"
                break
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch does not annotate it
            scaler.step(optimizer)
            scaler.update()
            total += loss.item()
        else:
            if not all(torch.isfinite(tensor).all() for tensor in student.state_dict().values()):
                reason = (
                    f"a weight was no longer finite at the end of epoch {epoch + 1}; the weights from before it stand"
                )
        if reason is not None:
            student.load_state_dict(before)
            return Tuned(_finished(student), epoch, state.seconds + time.perf_counter() - started, reason)
        state.finish(epoch + 1, time.perf_counter() - started)
        on_epoch(epoch + 1, total / len(loader))
    return Tuned(_finished(student), settings.epochs, state.seconds, None)


def train_steps(
    student: nn.Module, teacher: nn.Module, workload: Workload, settings: RecoverDefinition, steps: int
) -> Tuned:
    """A short training of exactly so many steps, on samples drawn once (the same for every network)."""
    size = len(workload.data.train)  # type: ignore[arg-type] # map-style
    batch = min(settings.batch, size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    drawn = [order[i % size] for i in range(steps * batch)]
    few = replace(workload, data=replace(workload.data, train=Subset(workload.data.train, drawn)))
    return fine_tune(student, teacher, few, settings.model_copy(update={"epochs": 1}))


def _loss(
    student: nn.Module,
    teacher: nn.Module,
    images: tuple[Tensor, ...],
    targets: Tensor,
    workload: Workload,
    distill: DistillDefinition | None,
) -> Tensor:
    outputs = student(*images)
    if distill is None:
        return workload.loss(outputs, targets)
    with torch.no_grad():
        taught = teacher(*images)
    soft = distillation_loss(outputs, taught, distill.temperature)
    return distill.weight * soft + (1 - distill.weight) * workload.loss(outputs, targets)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of the softened class distributions, mean over the batch. Logits: (n, classes).

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    return (
        F.kl_div(
            F.log_softmax(student / temperature, dim=-1),
            F.log_softmax(teacher / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        * temperature**2
    )


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for weights, none for biases and norms."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _schedule(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))


def _finished(student: nn.Module) -> nn.Module:
    return _on(student, "cpu", torch.contiguous_format).eval()


def _on(module: nn.Module, device: str, layout: torch.memory_format) -> nn.Module:
    """A float32 copy of a module on a device, in a memory layout."""
    moved: nn.Module = copy.deepcopy(module).float().to(device)
    return moved.to(memory_format=layout)  # type: ignore[no-any-return, call-overload] # torch's annotation lacks this form


class _State:
    """Weights and momentum after the last finished epoch, in one safetensors file."""

    def __init__(self, student: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path | None) -> None:
        self.student, self.optimizer, self.checkpoint = student, optimizer, checkpoint
        self.epoch, self.seconds = 0, 0.0
        if checkpoint is not None and checkpoint.is_file():
            self._load(checkpoint)

    def finish(self, epoch: int, seconds: float) -> None:
        self.epoch, self.seconds = epoch, self.seconds + seconds
        if self.checkpoint is None:
            return
        tensors = {f"model.{name}": tensor.contiguous() for name, tensor in self.student.state_dict().items()}
        for name, parameter in self.student.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum.contiguous()
        progress = {"epoch": self.epoch, "seconds": self.seconds}
        write(self.checkpoint, save(tensors, metadata={"progress": json.dumps(progress)}))

    def _load(self, checkpoint: Path) -> None:
        with safe_open(checkpoint, framework="pt") as stored:
            progress = json.loads(stored.metadata()["progress"])
            self.epoch, self.seconds = progress["epoch"], progress["seconds"]
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 # not a mapping
        self.student.load_state_dict(
            {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        )
        for name, parameter in self.student.named_parameters():
            if f"momentum.{name}" in tensors:
                self.optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(parameter.device)
