"""How the networks of the built-in workloads are trained: once, from scratch, by a seed; and where their weights are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from secateur.files import write


def cache_folder(given: str | None) -> Path:
    """Where trained weights are kept: the given folder, else SECATEUR_CACHE, else `~/.cache/secateur`."""
    return Path(given or os.environ.get("SECATEUR_CACHE") or "~/.cache/secateur").expanduser()


def trained_once(file: Path, train: Callable[[], nn.Module]) -> Path:
    """The file of a network's weights; trains it where the file is not there yet. Raises StateError where the disk is full."""
    if not file.is_file():
        write(file, save(train().state_dict()))
    return file


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained.

    name: of the weights' file; another recipe needs another one. rate: the peak of a one-cycle schedule. optimizer: parameters →
    optimizer.
    """

    name: str
    network: Callable[[], nn.Module]
    epochs: int
    batch: int
    rate: float
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]

    def trained(
        self,
        samples: int,
        loss: Callable[[nn.Module, Tensor, torch.Generator], Tensor],
        first: int | None = None,
    ) -> nn.Module:
        """Train from scratch, in whole batches. The same weights at each call on the same machine.

        loss: (network, numbers of the samples of a batch, generator for augmentation) → scalar. first: stop after so many epochs
        of this very training.
        """
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.network()
            generator = torch.Generator().manual_seed(0)
            optimizer = self.optimizer(model.parameters())
            steps = samples // self.batch
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=self.rate, epochs=self.epochs, steps_per_epoch=steps
            )
            for _ in range(self.epochs if first is None else first):
                order = torch.randperm(samples, generator=generator)
                for batch in order[: steps * self.batch].view(-1, self.batch):
                    value = loss(model, batch, generator)
                    optimizer.zero_grad()
                    value.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
                    optimizer.step()
                    schedule.step()
        return model.eval()
