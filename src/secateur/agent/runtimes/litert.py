"""LiteRT, formerly TensorFlow Lite: its interpreter with XNNPACK, on the CPU, in float32. Source: ai.google.dev/edge/litert."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .base import (
    Available,
    Batch,
    Probe,
    Runtime,
    RuntimeFailure,
    Session,
    Settings,
    Unavailable,
    as_array,
    reason_of,
)


def _probe(options: Mapping[str, str]) -> Probe:  # noqa: ARG001 # it has none
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter  # noqa: F401 # the part that a wheel for another system lacks
    except ImportError as error:
        return Unavailable(f"ai-edge-litert cannot be imported ({reason_of(error)}): pip install ai-edge-litert")
    return Available(str(ai_edge_litert.__version__))


class _Session(Session):
    def __init__(self, model: Path, settings: Settings) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_path=str(model), num_threads=settings.threads)
            self._interpreter.allocate_tensors()
        except Exception as error:  # it raises ValueError and RuntimeError, and promises neither
            raise RuntimeFailure(f"LiteRT does not load the model: {reason_of(error)}") from error
        # Named `…args_0`, `…args_1`, … and `…:0`, `…:1`, …: their order in the file need not be that of arguments and outputs.
        places = sorted(self._interpreter.get_input_details(), key=lambda entry: _number(entry["name"]))
        results = sorted(self._interpreter.get_output_details(), key=lambda entry: _number(entry["name"]))
        self._inputs = [(entry["index"], entry["dtype"]) for entry in places]
        self._outputs = [entry["index"] for entry in results]

    def run(self, inputs: Batch) -> Batch:
        try:
            for (index, dtype), value in zip(self._inputs, inputs):  # Python 3.9
                self._interpreter.set_tensor(index, value.astype(dtype, copy=False))  # int64 has become int32
            self._interpreter.invoke()
            return [as_array(self._interpreter.get_tensor(index)) for index in self._outputs]
        except Exception as error:  # see above
            raise RuntimeFailure(f"LiteRT does not run the model: {reason_of(error)}") from error


def _number(name: str) -> int:
    number = re.search(r"(?:args_|:)(\d+)", name)
    return int(number[1]) if number else 0


RUNTIME = Runtime(
    summary="LiteRT (TensorFlow Lite), CPU, float32", format="tflite", probe=_probe, open=_Session, extra="litert"
)
