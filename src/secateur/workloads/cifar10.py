"""CIFAR-10 with the ResNets of He et al. 2015, or with a VGG: data from a folder, weights from a file; nothing is downloaded.

The usual checkpoints were trained on all 50,000 training images, so training images would flatter every score. The search and
selection roles therefore come from one half of the test set, and the test role is the other half. Without a file of weights the
network is trained once, on the train role, and kept.
"""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.errors import WorkloadError
from secateur.files import write
from secateur.records import DataRoles, Workload
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.resnet import cifar_resnet
from secateur.workloads.roles import collect
from secateur.workloads.scores import top1
from secateur.workloads.training import Recipe, cache_folder
from secateur.workloads.vgg import Vgg

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "resnet": (cifar_resnet, (20, 32, 44, 56)),
    "vgg": (partial(Vgg, classes=10), (11, 13, 16, 19)),
}
"""Name → the untrained network of a depth, and its depths."""
EPOCHS = 3
"""Of training from scratch."""

_log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]


def workload(
    *,
    data: str,
    weights: str | None = None,
    network: str = "resnet",
    depth: int | None = None,
    search: int = 1000,
    calibration: int = 512,
    train: int | None = None,
    cache: str | None = None,
) -> Workload:
    """A CIFAR-10 classifier.

    data: the official `cifar-10-batches-py` folder, or a folder with `*train*.npz` and `*test*.npz` (arrays `images`, uint8
    (n, 32, 32, 3), and `labels`). weights: see `load_weights`; without them the network is trained at the first call, for some
    minutes, and kept in `cache`, default SECATEUR_CACHE, else `~/.cache/secateur`. network: `resnet` or `vgg`. depth: 20 (default),
    32, 44 or 56 of a ResNet; 11 (default), 13, 16 or 19 of a VGG. search: test images that score trials; selection gets the rest of
    their half. calibration: training images for recalibration and gradients. train: training images for training and recovery,
    default all but those. Raises WorkloadError for other networks and depths, and where files cannot be used.
    """
    if network not in NETWORKS:
        raise WorkloadError(f"There is no network '{network}' for CIFAR-10; there are {', '.join(NETWORKS)}.")
    build, depths = NETWORKS[network]
    chosen = depths[0] if depth is None else depth
    if chosen not in depths:
        raise WorkloadError(f"A {network} for CIFAR-10 has depth {', '.join(map(str, depths))}; not {chosen}.")
    train_images, train_labels, test_images, test_labels = read_cifar10(Path(data).expanduser())
    training = _dataset(train_images, train_labels)
    testing = _dataset(test_images, test_labels)
    half = len(testing) // 2
    if not 0 < search < half:
        raise WorkloadError(f"'search' is {search}; between 1 and {half - 1} test images can score trials.")
    last = len(training) if train is None else min(len(training), calibration + train)
    roles = DataRoles(
        train=Subset(training, range(calibration, last)),
        calibration=Subset(training, range(calibration)),
        search=Subset(testing, range(search)),
        selection=Subset(testing, range(search, half)),
        test=Subset(testing, range(half, len(testing))),
    )
    name = f"{network}{chosen}"
    file = weights or _trained(roles.train, partial(build, chosen), name, cache_folder(cache))
    load_weights(build(chosen), file)  # a wrong file fails now, not after the data has been read again
    return Workload(
        name=f"cifar10-{name}",
        build_model=lambda: load_weights(build(chosen), file),
        example_inputs=(testing.tensors[0][:2],),
        data=roles,
        loss=F.cross_entropy,
        score=top1,
        augment=flip_and_crop,
    )


def _trained(data: Dataset[tuple[Tensor, Tensor]], build: Callable[[], nn.Module], name: str, folder: Path) -> Path:
    """The file of weights that training leaves in the folder, once for each number of images."""
    (images,), labels = collect(data)
    recipe = Recipe(
        f"cifar10-{name}-n{len(labels)}-e{EPOCHS}-s0",
        build,
        epochs=EPOCHS,
        batch=128,
        rate=0.1,
        optimizer=lambda tensors: torch.optim.SGD(tensors, momentum=0.9, weight_decay=5e-4, nesterov=True),
    )
    file = folder / f"{recipe.name}.safetensors"
    if not file.is_file():
        _log.info("Training %s on %d images, once; it is kept in %s.", name, len(labels), folder)

        def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
            return F.cross_entropy(model(flip_and_crop(images[batch], generator)), labels[batch])

        write(file, save(recipe.trained(len(labels), loss).state_dict()))
    return file


def _dataset(images: Bytes, labels: Bytes) -> TensorDataset:
    scaled = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().div_(255)
    normalised = scaled.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])
    return TensorDataset(normalised, torch.from_numpy(labels.astype(np.int64)))


def flip_and_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """The usual augmentation: mirror half of the images, crop each out of a frame of 4 zeros. (n, 3, 32, 32) → the same."""
    count, _, height, width = images.shape
    mirrored = torch.rand(count, generator=generator) < 0.5  # half of them
    images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, count), generator=generator).to(images.device)
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[sample, channel, rows, columns]


def read_cifar10(folder: Path) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Train images, train labels, test images, test labels. Images are (n, 32, 32, 3), uint8.

    Raises WorkloadError where the folder holds neither form, or where a file is damaged.
    """
    if (folder / "data_batch_1").is_file():
        batches = [_official(folder / f"data_batch_{i}") for i in range(1, 6)]
        test = _official(folder / "test_batch")
        return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches]), *test
    paths = {part: sorted(folder.glob(f"*{part}*.npz")) for part in ("train", "test")}
    if all(len(files) == 1 for files in paths.values()):
        return (*_npz(paths["train"][0]), *_npz(paths["test"][0]))
    raise WorkloadError(
        f"{folder} holds no CIFAR-10: neither the official files (data_batch_1 … data_batch_5, test_batch) nor one *train*.npz "
        "and one *test*.npz."
    )


def _npz(path: Path) -> tuple[Bytes, Bytes]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WorkloadError(f"{path} is not a complete .npz with arrays 'images' and 'labels': {error}") from error
    if (
        images.ndim != 4 or images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8 or len(images) != len(labels)
    ):  # (n, 32, 32, 3)
        raise WorkloadError(
            f"{path}: 'images' is {images.dtype} {images.shape}; uint8 (n, 32, 32, 3) with n labels is needed."
        )
    return images, labels.astype(np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """Reads the official files, which are pickles, and refuses everything in them but plain numpy arrays."""

    ALLOWED: ClassVar[set[tuple[str, str]]] = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # how Python 3 writes the bytes of an array in the old protocols
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _official(path: Path) -> tuple[Bytes, Bytes]:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        flat, labels = np.asarray(content[b"data"], np.uint8), np.asarray(content[b"labels"], np.uint8)
        return flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError) as error:
        raise WorkloadError(f"{path} is not a CIFAR-10 batch: {error}") from error
