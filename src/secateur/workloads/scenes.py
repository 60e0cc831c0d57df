"""Frames of 20×20 pixels with a handwritten digit somewhere in them, in easy scenes and in hard ones: for networks with gates.

An easy frame is clean. A hard one is blurred, a bar of five pixels hides a part of the digit, and noise lies over all of it.
The digits are those of `secateur.workloads.digits`, each as often in easy frames as in hard ones of the same role. The network is
trained once, seeded, in some minutes on one core, and cached where that of the digits is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from secateur.records import ROLES, DataRoles, Workload
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.digits import digits, split
from secateur.workloads.resnet import ResNet
from secateur.workloads.roles import collect
from secateur.workloads.scores import top1
from secateur.workloads.training import Recipe, cache_folder, trained_once

SIZE, DIGIT, BAR = 20, 16, 5
"""Pixels of a frame's side, of a digit's, and of the width of what hides it."""
NOISE = 0.25
"""Standard deviation in a hard frame, of the range from black to white."""
DRAWN = {"train": 3}
"""Frames of each digit and kind in a data role; one in the others."""


def workload(*, cache: str | None = None) -> Workload:
    """Single frames, half of them hard, with a residual network of nine blocks.

    cache: folder for the digits and the trained weights. Default: SECATEUR_CACHE, else `~/.cache/secateur`.
    """
    roles = _digits(cache)
    data = DataRoles(
        **{role: _scenes(getattr(roles, role), DRAWN.get(role, 1), seed) for seed, role in enumerate(ROLES)}
    )
    weights = trained_once(cache_folder(cache) / f"{RECIPE.name}.safetensors", lambda: _trained(roles.train))
    return Workload(
        name="scenes",
        build_model=lambda: load_weights(network(), weights),
        example_inputs=collect(data.search, 2)[0],
        data=data,
        loss=F.cross_entropy,
        score=top1,
    )


def network() -> nn.Module:
    """The untrained network: (n, 1, SIZE, SIZE) → (n, 10). Seven of its nine blocks give the shape that they read."""
    return ResNet((16, 32, 64), 3, classes=10, channels=1, padded_shortcut=False)


RECIPE = Recipe(
    "scenes-16-32-64x3-e16-s0",
    network,
    epochs=16,
    batch=64,
    rate=0.1,
    optimizer=lambda tensors: torch.optim.SGD(tensors, momentum=0.9, weight_decay=5e-4, nesterov=True),
)


@dataclass(frozen=True)
class Video:
    """frames: (n, 1, SIZE, SIZE). labels: (n,). hard: (n,) of bool."""

    frames: Tensor
    labels: Tensor
    hard: Tensor


def video(count: int, seed: int = 0, *, run: int = 300, shot: int = 15, cache: str | None = None) -> Video:
    """A stream of test digits: runs of easy frames and of hard ones in turn, beginning with easy ones.

    A digit is seen for a shot of so many frames, in each of which it moves by at most one pixel along each axis. cache: as in
    `workload`.
    """
    pixels, labels = collect(_digits(cache).test)
    draw = torch.Generator().manual_seed(seed)
    shots = -(-count // shot)
    which = torch.randint(len(labels), (shots,), generator=draw).repeat_interleave(shot)[:count]
    moves = torch.randint(-1, 2, (shots, shot, 2), generator=draw)
    moves[:, 0] = torch.randint(SIZE - DIGIT + 1, (shots, 2), generator=draw)
    places = moves.cumsum(1).clamp(0, SIZE - DIGIT).flatten(0, 1)[:count]
    hard = torch.arange(count) // run % 2 == 1
    return Video(frames(pixels[0][which], places, hard, draw), labels[which], hard)


def frames(pixels: Tensor, places: Tensor, hard: Tensor, draw: torch.Generator) -> Tensor:
    """Digits in frames, (n, 1, SIZE, SIZE). pixels: (n, 8, 8) from 0 to 16. places: (n, 2), top and left. hard: (n,) of bool."""
    large = F.interpolate(pixels[:, None] / 16, size=DIGIT, mode="bilinear")
    made = torch.zeros(len(pixels), 1, SIZE, SIZE)
    for frame, digit, (top, left) in zip(made, large, places.tolist(), strict=True):
        frame[:, top : top + DIGIT, left : left + DIGIT] = digit
    disturbed = F.avg_pool2d(made, 3, 1, 1)
    starts = (places + torch.randint(DIGIT - BAR, places.shape, generator=draw)).tolist()
    for number, (frame, (top, left)) in enumerate(zip(disturbed, starts, strict=True)):
        if number % 2:
            frame[:, top : top + BAR] = 0.5
        else:
            frame[:, :, left : left + BAR] = 0.5
    disturbed += NOISE * torch.randn(made.shape, generator=draw)
    return torch.where(hard[:, None, None, None], disturbed, made).sub(0.2).div(0.35)


def _digits(cache: str | None) -> DataRoles:
    """The digits by role, as pixels."""
    return split(TensorDataset(*digits(cache_folder(cache) / "digits.safetensors")))


def _scenes(role: Dataset[tuple[Tensor, Tensor]], times: int, seed: int) -> TensorDataset:
    """Each digit of a role so many times in easy frames, then as often in hard ones."""
    (pixels,), labels = collect(role)
    numbers = torch.arange(2 * times * len(labels))
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(_drawn(pixels, numbers, numbers >= times * len(labels), draw), labels.repeat(2 * times))


def _drawn(pixels: Tensor, numbers: Tensor, hard: Tensor, draw: torch.Generator) -> Tensor:
    """Frames with digits anywhere. numbers: of the digits, modulo their number."""
    places = torch.randint(SIZE - DIGIT + 1, (len(numbers), 2), generator=draw)
    return frames(pixels[numbers % len(pixels)], places, hard, draw)


def _trained(role: Dataset[tuple[Tensor, Tensor]]) -> nn.Module:
    """Train a network on frames that are drawn anew in each epoch, half of them hard."""
    (pixels,), labels = collect(role)

    def loss(model: nn.Module, batch: Tensor, draw: torch.Generator) -> Tensor:
        images = _drawn(pixels, batch, batch >= len(labels), draw)
        return F.cross_entropy(model(images), labels[batch % len(labels)])

    return RECIPE.trained(2 * len(labels), loss)
