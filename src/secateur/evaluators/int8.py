"""A network's ONNX file in int8, by ONNX Runtime's static quantization.

Weights: eight bits, symmetric, a scale for each output channel. Activations: eight bits without a sign, scale and zero point from
the smallest and the largest value on calibration data. With signed ones, ONNX Runtime was slower on x86 than with float32
(ResNet-20: 1.5 times the time, against 0.58). The file has the inputs and outputs of the original, in float32, with pairs of
QuantizeLinear and DequantizeLinear around what is computed in int8 (the form QDQ). Source of the arithmetic: Jacob et al. 2018,
arXiv:1712.05877.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from secateur.errors import EvaluationFailed, first_line
from secateur.evaluators.formats import quiet

SAMPLES = 128
"""Of calibration data, from which the ranges come: with 64 to 256, ResNet-20 scored the same."""
BATCH = 32
"""Samples that are run at a time."""
ROUNDING = 0.05
"""Largest difference, relative to the largest output, between two machines that run the same int8 file.

Where a value lies between two steps of 1/255 of its range, one machine rounds it up and another one down. ONNX Runtime's own int8
kernels and its float32 arithmetic of the same file differ by up to 0.006 (the digits network) and 0.012 (ResNet-20).
"""

Inputs = Sequence[NDArray[Any]]


def quantized(file: bytes, inputs: Inputs) -> bytes:
    """A serialised ONNX model in int8. inputs: calibration samples, (n, …) for each input, in the order of the file.

    Raises EvaluationFailed where ONNX Runtime cannot quantize it.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # slow to import

    model = onnx.load_model_from_string(file)
    names = [entry.name for entry in model.graph.input]
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            made = Path(folder) / "model.onnx"
            quantize_static(
                model,
                made,
                _Reader(dict(zip(names, inputs, strict=True))),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return made.read_bytes()
    except Exception as error:  # it raises whatever it meets
        raise EvaluationFailed(f"ONNX Runtime cannot quantize the model: {first_line(error)}") from error


class _Reader:
    """Gives out calibration samples in batches, as `onnxruntime.quantization.CalibrationDataReader` does."""

    def __init__(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        self._batches = _batches(inputs)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        return next(self._batches, None)


def _batches(inputs: Mapping[str, NDArray[Any]]) -> Iterator[Mapping[str, NDArray[Any]]]:
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        yield {name: values[start : start + BATCH] for name, values in inputs.items()}
