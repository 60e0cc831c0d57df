"""Tensors by name in safetensors files, written and read without a copy of all of them in memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
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


class TensorFile(Mapping[str, Tensor]):
    """Tensors in a file. One is mapped when it is asked for, and lies in memory while somebody holds it."""

    def __init__(self, path: Path) -> None:
        """path: of a safetensors file, which must stay where it is."""
        self._path = path
        with safe_open(path, "pt") as file:
            self._names = frozenset(file.keys())

    @classmethod
    def written(cls, path: Path, tensors: dict[str, Tensor]) -> TensorFile:
        """These in a new file. Raises StateError where the disk does not take it."""
        write_tensors(path, tensors)
        return cls(path)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
