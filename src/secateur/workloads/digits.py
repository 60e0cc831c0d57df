"""The embedded workload: 1,797 handwritten digits of 8×8 pixels (scikit-learn), and a small network of one of two kinds.

The network is trained once, seeded, in some seconds on two cores, and cached under `~/.cache/secateur` (or SECATEUR_CACHE). It
sees only the train role: 850 samples; 97 calibrate, 300 score trials, 250 select, 300 test.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.errors import WorkloadError
from secateur.files import write
from secateur.records import DataRoles, Workload
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.resnet import ResNet
from secateur.workloads.roles import collect
from secateur.workloads.scores import top1
from secateur.workloads.training import Recipe, cache_folder, trained_once
from secateur.workloads.transformer import Sizes, VisionTransformer


def workload(*, network: str = "resnet", cache: str | None = None) -> Workload:
    """Digits with a residual network of 14 convolutions, or with a vision transformer of three blocks.

    network: `resnet` or `vit`. cache: folder for the digits and the trained weights. Default: SECATEUR_CACHE, else
    `~/.cache/secateur`. Raises WorkloadError for another network.
    """
    if network not in RECIPES:
        raise WorkloadError(f"There is no network '{network}' for the digits; there are {', '.join(RECIPES)}.")
    folder = cache_folder(cache)
    pixels, labels = digits(folder / "digits.safetensors")
    images = pixels.div(16).sub(0.305).div(0.376)[:, None]
    roles = split(TensorDataset(images, labels))
    recipe = RECIPES[network]

    def after(epochs: int, name: str) -> nn.Module:
        file = folder / f"digits-{recipe.name}{name}.safetensors"
        return load_weights(recipe.network(), trained_once(file, lambda: train(roles.train, recipe, epochs)))

    after(recipe.epochs, "")
    return Workload(
        name="digits",
        build_model=lambda: after(recipe.epochs, ""),
        example_inputs=(images[:2],),
        data=roles,
        loss=F.cross_entropy,
        score=top1,
        augment=shift,
        build_early=lambda: after(1, "-early"),
    )


def digits(file: Path) -> tuple[Tensor, Tensor]:
    """Pixels (n, 8, 8) from 0 to 16, and labels (n,). file: where they are kept, because scikit-learn takes seconds to import."""
    if not file.is_file():
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images, labels = torch.from_numpy(bunch.images).float(), torch.from_numpy(bunch.target).long()
        write(file, save({"images": images, "labels": labels}))
    kept = load_file(file)
    return kept["images"], kept["labels"]


def split(samples: TensorDataset) -> DataRoles:
    """Five disjoint parts of a seeded permutation; more of it for the scores than `split_roles` would give."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    ends = [0, *accumulate((850, 97, 300, 250, 300))]
    return DataRoles(*(Subset(samples, order[first:end]) for first, end in pairwise(ends)))


def residual_network() -> nn.Module:
    """The untrained residual network: (n, 1, 8, 8) → (n, 10)."""
    return ResNet((24, 48, 96), 2, classes=10, channels=1, padded_shortcut=False)


def vision_transformer() -> nn.Module:
    """The untrained vision transformer: (n, 1, 8, 8) → (n, 10); 16 patches of 2×2 pixels, six heads of eight channels."""
    return VisionTransformer(Sizes(width=48, depth=3, heads=6, inner=192), size=8, patch=2, channels=1, classes=10)


RECIPES = {
    "resnet": Recipe(
        "resnet-24-48-96x2-e20-s0",
        residual_network,
        epochs=20,
        batch=64,
        rate=0.1,
        optimizer=lambda tensors: torch.optim.SGD(tensors, momentum=0.9, weight_decay=5e-4, nesterov=True),
    ),
    "vit": Recipe(
        "vit-48x3-h6-p2-e60-s0",
        vision_transformer,
        epochs=60,
        batch=32,
        rate=4e-3,
        optimizer=lambda tensors: torch.optim.AdamW(tensors, weight_decay=0.05),
    ),
}


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move the whole batch by up to one pixel. (n, 1, 8, 8) → the same."""
    dy, dx = torch.randint(-1, 2, (2,), generator=generator).tolist()
    padded = F.pad(images, (1, 1, 1, 1), value=float(images.min()))
    return padded[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]


def train(data: Dataset[tuple[Tensor, Tensor]], recipe: Recipe, epochs: int) -> nn.Module:
    """Train a network from scratch. epochs: the first so many of the recipe's."""
    (images,), labels = collect(data)
    return recipe.trained(
        len(labels),
        lambda model, batch, generator: F.cross_entropy(model(shift(images[batch], generator)), labels[batch]),
        epochs,
    )
