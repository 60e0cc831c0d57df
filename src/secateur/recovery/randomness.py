"""Random numbers that depend on a seed alone, and leave those of everybody else as they were."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators of torch (all devices), numpy and Python start from a seed; after it, they are as before.

    Dropout and the augmentations of data sets draw from them. A generator that user code keeps to itself is beyond reach.
    """
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 # what user code draws from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        sow(seed)
        try:
            yield
        finally:
            np.random.set_state(arrays)  # noqa: NPY002
            random.setstate(python)


def sow(seed: int, purpose: str = "", number: int = 0) -> None:
    """Start the global generators anew. purpose, number: of what is drawn; others draw other numbers from the same seed."""
    own = _mixed(seed, purpose, number)
    torch.manual_seed(own)
    np.random.seed(own)  # noqa: NPY002
    random.seed(own)


def drawn_from(seed: int, purpose: str, number: int) -> torch.Generator:
    """A generator of torch's for one purpose."""
    return torch.Generator().manual_seed(_mixed(seed, purpose, number))


def _mixed(seed: int, purpose: str, number: int) -> int:
    """32 bits, all that numpy's global generator takes."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), number]).generate_state(1)[0])
