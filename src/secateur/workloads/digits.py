"""The embedded workload: 1,797 handwritten digits of 8×8 pixels (scikit-learn), and a small residual network.

The network is trained once, seeded, in some seconds on two cores, and cached under `~/.cache/secateur` (or SECATEUR_CACHE). The
network sees only the train role: 850 samples; 97 calibrate, 300 score trials, 250 select, 300 test.
"""

from __future__ import annotations

import os
from itertools import accumulate, pairwise
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.files import write
from secateur.records import DataRoles, Workload
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.resnet import ResNet
from secateur.workloads.roles import collect
from secateur.workloads.scores import top1

RECIPE = "resnet-24-48-96x2-e20-s0"
EPOCHS = 20


def workload(*, cache: str | None = None) -> Workload:
    """Digits with a residual network of 14 convolutions.

    cache: folder for the digits and the trained weights. Default: SECATEUR_CACHE, else `~/.cache/secateur`.
    """
    folder = Path(cache or os.environ.get("SECATEUR_CACHE") or "~/.cache/secateur").expanduser()
    pixels, labels = digits(folder / "digits.safetensors")
    images = pixels.div(16).sub(0.305).div(0.376)[:, None]
    roles = split(TensorDataset(images, labels))
    weights = folder / f"digits-{RECIPE}.safetensors"
    if not weights.is_file():
        write(weights, save(train(roles.train).state_dict()))
    return Workload(
        name="digits",
        build_model=lambda: load_weights(network(), weights),
        example_inputs=(images[:2],),
        data=roles,
        loss=F.cross_entropy,
        score=top1,
        augment=shift,
    )


def digits(file: Path) -> tuple[Tensor, Tensor]:
    """Pixels (n, 8, 8) from 0 to 16, and labels (n,). file: where they are kept, because scikit-learn takes seconds to import."""
    if not file.is_file():
        from sklearn.datasets import load_digits

        found = load_digits()
        images, labels = torch.from_numpy(found.images).float(), torch.from_numpy(found.target).long()
        write(file, save({"images": images, "labels": labels}))
    kept = load_file(file)
    return kept["images"], kept["labels"]


def split(samples: TensorDataset) -> DataRoles:
    """Five disjoint parts of a seeded permutation; more of it for the scores than `split_roles` would give."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    ends = [0, *accumulate((850, 97, 300, 250, 300))]
    return DataRoles(*(Subset(samples, order[first:end]) for first, end in pairwise(ends)))


def network() -> ResNet:
    """The untrained network: (n, 1, 8, 8) → (n, 10)."""
    return ResNet((24, 48, 96), 2, classes=10, channels=1, padded_shortcut=False)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move the whole batch by up to one pixel. (n, 1, 8, 8) → the same."""
    dy, dx = torch.randint(-1, 2, (2,), generator=generator).tolist()
    padded = F.pad(images, (1, 1, 1, 1), value=float(images.min()))
    return padded[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]


def train(data: Dataset[tuple[Tensor, Tensor]], seed: int = 0) -> nn.Module:
    """Train the network from scratch. The same seed gives the same weights on the same machine."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
        generator = torch.Generator().manual_seed(seed)
        (images,), labels = collect(data)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = EPOCHS * (len(labels) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        for _ in range(EPOCHS):
            order = torch.randperm(len(labels), generator=generator)
            for batch in order[: len(labels) // 64 * 64].view(-1, 64):
                loss = F.cross_entropy(model(shift(images[batch], generator)), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
                optimizer.step()
                schedule.step()
    return model.eval()
