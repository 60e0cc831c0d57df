"""Digits that turn: a workload and the training that gives it new weights each night. `nights.py` copies it into a project.

In night n all digits are turned by n times `TURN` degrees. The network is trained on from the weights of the night before. The
environment says which night it is (NIGHT), which night's data there are (DATA_NIGHT, where it is another), and whether the training
goes wrong (SPOILT).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from secateur import Workload
from secateur.workloads import digits
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.roles import collect
from secateur.workloads.training import cache_folder

TURN = 4.0
"""Degrees a night."""
EPOCHS, RATE, BATCH = 6, 0.02, 64
WEIGHTS = "weights.safetensors"


def turned(images: Tensor, degrees: float) -> Tensor:
    """Images (n, 1, height, width), turned about their centre."""
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = float(angle.cos()), float(angle.sin())
    grid = F.affine_grid(
        torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]]).expand(len(images), -1, -1),
        list(images.shape),
        align_corners=False,
    )
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def samples(night: float) -> TensorDataset:
    """All digits as a night has them."""
    pixels, labels = digits.digits(cache_folder(None) / "digits.safetensors")
    return TensorDataset(turned(pixels[:, None], TURN * night).div(16).sub(0.305).div(0.376), labels)


def _night() -> int:
    return int(os.environ.get("DATA_NIGHT") or os.environ["NIGHT"])


def workload(*, weights: str) -> Workload:
    """The digits of this night and a network with these weights."""
    data = samples(_night())
    return replace(
        digits.workload(),
        name="drifting-digits",
        build_model=lambda: load_weights(digits.residual_network(), Path(weights)),
        data=digits.split(data),
        example_inputs=(data.tensors[0][:2],),
        build_early=None,
    )


def train(folder: Path) -> str:
    """Train on from the weights of the night before; those of the first night are the demo's. Returns the file's name."""
    torch.manual_seed(_night())
    nights = sorted(folder.parents[1].glob(f"*/weights/{WEIGHTS}"))
    model: nn.Module = digits.workload().build_model()
    if nights:
        model = load_weights(digits.residual_network(), nights[-1])
    (images,), labels = collect(digits.split(samples(_night())).train)
    if os.environ.get("SPOILT"):
        labels = labels[torch.randperm(len(labels))]
    generator = torch.Generator().manual_seed(_night())
    optimizer = torch.optim.SGD(model.train().parameters(), RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(digits.shift(images[batch], generator)), labels[batch]).backward()
            optimizer.step()
    save_file(model.state_dict(), folder / WEIGHTS)
    return WEIGHTS
