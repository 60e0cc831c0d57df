"""Files that runtimes read, made from a network. ONNX is made of every network; the others beside it, where a runtime asks."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.errors import EvaluationFailed, first_line
from secateur.evaluators.flat import FlatModule
from secateur.workloads.pytrees import PyTree, tensors

ONNX = "onnx"


@dataclass(frozen=True)
class Format:
    """An entry of the registry. convert: module, its inputs (batch, …) → the file. needs, extra: a module of an extra, or empty."""

    summary: str
    convert: Callable[[FlatModule, tuple[Tensor, ...]], bytes]
    needs: str = ""
    extra: str = ""

    @property
    def missing(self) -> str | None:
        """What to install before anything can be converted here, or None."""
        if not self.needs or find_spec(self.needs) is not None:
            return None
        return f"{self.needs} is not installed on this host: pip install 'secateur[{self.extra}]'"


def _program(module: FlatModule, inputs: tuple[Tensor, ...]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, inputs), buffer)
    return buffer.getvalue()


def _litert(module: FlatModule, inputs: tuple[Tensor, ...]) -> bytes:
    import litert_torch

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        litert_torch.convert(module, inputs).export(str(file))
        return file.read_bytes()


FORMATS: dict[str, Format] = {
    "pt2": Format("torch.export's archive", _program),
    "tflite": Format("LiteRT's flatbuffer", _litert, "litert_torch", "litert"),
}
"""The registry, by file suffix. A converted file takes batches of one size only."""


def convert(suffix: str, module: nn.Module, inputs: PyTree) -> bytes:
    """A network's file in one of `FORMATS`. inputs: of the batch that it will take. Raises EvaluationFailed."""
    try:
        with quiet():
            flat = FlatModule(module.cpu().eval(), inputs)
            return FORMATS[suffix].convert(flat, tuple(tensors(inputs)))
    except Exception as error:  # converters raise whatever they meet
        raise EvaluationFailed(f"the model cannot be converted to {suffix}: {first_line(error)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What converters print and log of their progress, through Python and behind its back, is not shown."""
    disabled, kept = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(disabled)
