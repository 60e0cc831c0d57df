"""What runs an exported model. A runtime is an entry in `RUNTIMES`: a probe, and how to open a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.errors import EvaluationFailed, first_line

Array = NDArray[Any]


class Session(Protocol):
    """An opened model."""

    def run(self, inputs: Sequence[Array]) -> Array:
        """The model's output for one batch. inputs: one array per model input, (batch, …)."""
        ...


@dataclass(frozen=True)
class Runtime:
    """probe: None where it can be used, else the reason. open: serialised ONNX model, threads → session."""

    summary: str
    probe: Callable[[], str | None]
    version: Callable[[], str]
    open: Callable[[bytes, int], Session]


class _OnnxRuntimeSession:
    def __init__(self, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised as well; it need not be printed too
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class but this
            raise EvaluationFailed(f"ONNX Runtime does not load the model: {first_line(error)}") from error
        self._inputs = [entry.name for entry in self._session.get_inputs()]

    def run(self, inputs: Sequence[Array]) -> Array:
        try:
            output = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))[0]
        except Exception as error:  # its exceptions share no base class but this
            raise EvaluationFailed(f"ONNX Runtime does not run the model: {first_line(error)}") from error
        return np.asarray(output)


def _onnxruntime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": Runtime(
        "ONNX Runtime, CPU provider",
        lambda: None,
        _onnxruntime_version,
        lambda model, threads: _OnnxRuntimeSession(model, threads),
    ),
}
"""The registry."""
