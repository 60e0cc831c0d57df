"""Random numbers that depend on a seed alone, and leave those of everybody else as they were."""

from __future__ import annotations

import contextlib
import random
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
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(arrays)  # noqa: NPY002
            random.setstate(python)
