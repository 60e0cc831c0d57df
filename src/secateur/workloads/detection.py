"""Shapes on a noisy ground, made by a seeded draw, and a small detector with three heads that is trained on them once.

Circles, squares and triangles of 8 to 40 pixels, one to four an image, which may overlap. The score is the mean average precision
at an overlap (IoU) of one half, over the whole set (Everingham et al. 2010, doi:10.1007/s11263-009-0275-4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from secateur.records import DataRoles, Workload
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.detector import STRIDES, Detector
from secateur.workloads.roles import collect
from secateur.workloads.training import Recipe, cache_folder, trained_once

CLASSES = ("circle", "square", "triangle")
SIZE, MOST = 64, 4
"""Pixels of an image's side; objects of an image."""
SAMPLES = {"train": 1500, "calibration": 128, "search": 250, "selection": 300, "test": 500}
OVERLAP, MOST_FOUND = 0.5, 10
"""IoU from which two boxes are one object; boxes of a class that are looked at in an image, by confidence."""
LEVELS = ((0.0, 16.0), (16.0, 28.0), (28.0, float(SIZE)))
"""Which sizes of objects, in pixels of the longer side, each head is trained to find."""

Heads = Sequence[Tensor]


def workload(*, cache: str | None = None) -> Workload:
    """The detector with its images.

    cache: folder for the trained weights. Default: SECATEUR_CACHE, else `~/.cache/secateur`. The first call trains for minutes.
    """
    data = DataRoles(**{role: shapes(count, seed) for seed, (role, count) in enumerate(SAMPLES.items())})
    weights = trained_once(cache_folder(cache) / f"{RECIPE.name}.safetensors", lambda: trained(data.train))
    return Workload(
        name="shapes",
        build_model=lambda: load_weights(network(), weights),
        example_inputs=collect(data.search, 2)[0],
        data=data,
        loss=loss,
        score=mean_average_precision,
        score_name="mAP@0.5",
        output=flat,
    )


def shapes(count: int, seed: int) -> TensorDataset:
    """Images (3, SIZE, SIZE), and of each the objects (MOST, 5): class (-1: none), left, top, right and bottom in pixels."""
    draw = np.random.default_rng(seed)
    images = torch.zeros(count, 3, SIZE, SIZE)
    objects = torch.full((count, MOST, 5), -1.0)
    for number in range(count):
        picture = np.broadcast_to(draw.uniform(0.2, 0.8, (3, 1, 1)), (3, SIZE, SIZE)).copy()
        for place in range(draw.integers(1, MOST + 1)):
            kind, side = int(draw.integers(len(CLASSES))), draw.uniform(8, 40)
            left, top = draw.uniform(0, SIZE - side, 2)
            picture[:, _inside(kind, left, top, side)] = draw.uniform(0, 1, (3, 1))
            objects[number, place] = torch.tensor([kind, left, top, left + side, top + side])
        images[number] = torch.from_numpy(picture + draw.normal(0, 0.06, picture.shape)).sub(0.5).div(0.25)
    return TensorDataset(images, objects)


def _inside(kind: int, left: float, top: float, side: float) -> NDArray[np.bool_]:
    """The pixels of a shape."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    across, down = (x - left) / side, (y - top) / side
    if CLASSES[kind] == "circle":
        return np.asarray((across - 0.5) ** 2 + (down - 0.5) ** 2 <= 0.25)
    within = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1)
    return np.asarray(within if CLASSES[kind] == "square" else within & (np.abs(across - 0.5) <= down / 2))


def flat(heads: Heads) -> Tensor:
    """All cells of all heads, (n, cells, classes + 4): what cut detectors are compared by."""
    return torch.cat([head.flatten(2).transpose(1, 2) for head in heads], 1)


def _cells(heads: Heads) -> tuple[Tensor, Tensor]:
    """Centres in pixels, (cells, 2), and the stride of each cell."""
    centres, strides = [], []
    for head, stride in zip(heads, STRIDES, strict=True):
        steps = (torch.arange(head.shape[-1], device=head.device) + 0.5) * stride
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()], 1))
        strides.append(torch.full_like(x.flatten(), stride))
    return torch.cat(centres), torch.cat(strides)


def boxes(heads: Heads) -> Tensor:
    """Left, top, right and bottom that each cell says, in pixels: (n, cells, 4)."""
    centres, strides = _cells(heads)
    distances = flat(heads)[..., -4:].clamp(max=5).exp() * strides[:, None]
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap over union of boxes (…, 4)."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b))
    return overlap / (area_a + area_b - overlap).clamp(min=1e-6)


def loss(heads: Heads, objects: Tensor) -> Tensor:
    """Focal loss of the classes (Lin et al. 2017, arXiv:1708.02002) and 1 − IoU of the boxes, of the cells that lie in an object.

    A cell belongs to the smallest object of its head's sizes whose middle half it lies in.
    """
    centres, strides = _cells(heads)
    logits = flat(heads)[..., :-4]
    corners = objects[..., 1:]
    sides = (corners[..., 2:] - corners[..., :2]).amax(-1)
    middle, reach = (corners[..., :2] + corners[..., 2:]) / 2, sides / 4
    near = (centres[None, :, None] - middle[:, None]).abs().amax(-1) <= reach[:, None].clamp(
        min=2.5
    )  # (n, cells, objects)
    bounds = torch.tensor(LEVELS, device=objects.device)[[STRIDES.index(int(stride)) for stride in strides]]
    fits = (sides[:, None] >= bounds[:, :1]) & (sides[:, None] < bounds[:, 1:]) & (objects[:, None, :, 0] >= 0)
    size = torch.where(near & fits, sides[:, None], torch.inf)
    smallest, owner = size.min(-1)
    positive = smallest.isfinite()
    kinds = objects[..., 0].long().gather(1, owner)
    wanted = F.one_hot(torch.where(positive, kinds, 0), logits.shape[-1]) * positive.unsqueeze(-1)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="none")
    right = torch.where(wanted == 1, logits.sigmoid(), 1 - logits.sigmoid())
    count = positive.sum().clamp(min=1)
    focal = ((1 - right) ** 2 * entropy).sum() / count
    given = corners.gather(1, owner.unsqueeze(-1).expand(-1, -1, 4))
    return focal + (1 - _iou(boxes(heads), given))[positive].sum() / count


def mean_average_precision(heads: Heads, objects: Tensor) -> Tensor:
    """The area under precision over recall at an IoU of one half, mean over the classes; a scalar in [0, 1] for the whole set."""
    confidences, cells = flat(heads)[..., :-4].sigmoid().transpose(1, 2).topk(MOST_FOUND)  # (n, classes, found)
    corners = boxes(heads)[:, None].expand(-1, len(CLASSES), -1, -1).gather(2, cells[..., None].expand(-1, -1, -1, 4))
    kept = _without_overlaps(corners)
    kinds = torch.arange(len(CLASSES), device=objects.device)
    given = objects[:, None, :, 0] == kinds[:, None]  # (n, classes, objects)
    hits = _hits(corners, kept, objects[..., 1:], given)
    there = given.sum((0, 2))
    precisions = [
        _average_precision(confidences[:, kind][kept[:, kind]], hits[:, kind][kept[:, kind]], int(there[kind]))
        for kind in kinds[there > 0].tolist()
    ]
    return torch.stack(precisions).mean() if precisions else torch.tensor(0.0)


def _without_overlaps(corners: Tensor) -> Tensor:
    """Which boxes (…, found, 4), the most confident first, overlap by less than half with those that stay before them."""
    overlaps = _iou(corners.unsqueeze(-2), corners.unsqueeze(-3)) >= OVERLAP
    kept = torch.ones(corners.shape[:-1], dtype=torch.bool, device=corners.device)
    for place in range(1, corners.shape[-2]):
        kept[..., place] = ~(overlaps[..., place, :place] & kept[..., :place]).any(-1)
    return kept


def _hits(corners: Tensor, kept: Tensor, objects: Tensor, given: Tensor) -> Tensor:
    """Of each box (n, classes, found) whether it is an object that none before it was."""
    overlaps = _iou(corners.unsqueeze(-2), objects[:, None, None]).masked_fill(~given.unsqueeze(2), 0.0)
    free, hits = given.clone(), torch.zeros_like(kept)
    for place in range(corners.shape[2]):
        best, owner = (overlaps[:, :, place] * free).max(-1)
        hits[..., place] = kept[..., place] & (best >= OVERLAP)
        taken = F.one_hot(owner, objects.shape[1]).bool() & hits[..., place, None]
        free &= ~taken
    return hits


def _average_precision(confidences: Tensor, hits: Tensor, there: int) -> Tensor:
    """Of boxes of one class. there: objects of the class."""
    hit = hits[confidences.argsort(descending=True, stable=True)].float()
    precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1, device=hit.device)
    best_from_here = precision.flip(0).cummax(0).values.flip(0)
    return (best_from_here * hit).sum() / there


def network() -> Detector:
    """The untrained detector, which begins by seeing nothing: almost all cells are empty."""
    model = Detector(len(CLASSES))
    for head in model.heads:
        nn.init.constant_(head[-1].bias[: len(CLASSES)], -3.0)  # type: ignore[index] # a Sequential
    return model


RECIPE = Recipe(
    "shapes-yolo-16-e24-s0",
    network,
    epochs=24,
    batch=32,
    rate=4e-3,
    optimizer=lambda tensors: torch.optim.AdamW(tensors, weight_decay=0.01),
)


def trained(data: Dataset[tuple[Tensor, Tensor]]) -> nn.Module:
    """Train the detector from scratch."""
    (images,), objects = collect(data)
    return RECIPE.trained(len(images), lambda model, batch, _: loss(model(images[batch]), objects[batch]))
