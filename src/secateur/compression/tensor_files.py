"""Tensors by name in safetensors files, written without a copy of them in memory."""

from __future__ import annotations

import errno
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from secateur.errors import first_line
from secateur.files import unfinished


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A file that is the old one or the whole new one. Raises StateError where the disk does not take it."""
    with unfinished(path) as part:
        try:
            save_file(tensors, part)
        except SafetensorError as error:  # what the system said is in its text
            raise OSError(errno.ENOSPC, first_line(error)) from error
