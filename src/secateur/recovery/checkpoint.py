"""The state of a training after its last finished epoch, in one safetensors file: training goes on from it bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from secateur.files import write
from secateur.recovery.loop import Learner


class Checkpoint:
    """Weights, momentum, masks and the scale of the loss, with epochs, seconds and the epochs' losses so far.

    Random numbers need no place in it: every epoch draws from its own seed.
    """

    def __init__(self, learner: Learner, file: Path | None) -> None:
        """Puts the learner into the state that the file holds, where there is one. file: None to keep nothing."""
        self._learner, self._file = learner, file
        self.epoch, self.seconds = 0, 0.0
        self.losses: tuple[float, ...] = ()
        if file is not None and file.is_file():
            self._load(file)

    def finish(self, epoch: int, seconds: float, loss: float) -> None:
        """An epoch is over; seconds: it took; loss: its mean. Raises StateError where the disk does not take the file."""
        self.epoch, self.seconds, self.losses = epoch, self.seconds + seconds, (*self.losses, loss)
        if self._file is None:
            return
        tensors = {
            f"model.{name}": tensor.clone(memory_format=torch.contiguous_format)  # safetensors refuses tied tensors
            for name, tensor in self._learner.student.state_dict().items()
        }
        for name, parameter in self._learner.student.named_parameters():
            momentum = self._learner.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum.contiguous()
        for name, tensor in self._learner.masks.state().items():
            tensors[f"masks.{name}"] = tensor.clone(memory_format=torch.contiguous_format)
        progress = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "losses": self.losses,
            "scaler": self._learner.scaler.state_dict(),
        }
        write(self._file, save(tensors, metadata={"progress": json.dumps(progress)}))

    def _load(self, file: Path) -> None:
        with safe_open(file, framework="pt") as stored:
            progress = json.loads(stored.metadata()["progress"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 # not a mapping
        self.epoch, self.seconds = progress["epoch"], progress["seconds"]
        self.losses = tuple(progress["losses"])
        if progress["scaler"]:
            self._learner.scaler.load_state_dict(progress["scaler"])
        self._learner.student.load_state_dict(
            {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        )
        masks = {name.removeprefix("masks."): t for name, t in tensors.items() if name.startswith("masks.")}
        self._learner.masks.restore(masks)
        for name, parameter in self._learner.student.named_parameters():
            if f"momentum.{name}" in tensors:
                # In the parameter's own layout: another one may round differently.
                momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self._learner.optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
