"""OpenVINO on the CPU, in float32: by itself it takes bfloat16 on processors that have it, and says nothing."""

from __future__ import annotations

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
        import openvino
    except ImportError as error:
        return Unavailable(
            f"openvino cannot be imported ({reason_of(error)}): pip install 'secateur[openvino]', or openvino alone on a board"
        )
    return Available(str(openvino.__version__).split("-", 1)[0] + " f32")


class _Session(Session):
    def __init__(self, model: Path, settings: Settings) -> None:
        import openvino

        wanted = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            compiled = openvino.Core().compile_model(model, "CPU", wanted)
        except Exception as error:  # its exceptions share no base class but this
            raise RuntimeFailure(f"OpenVINO does not load the model: {reason_of(error)}") from error
        self._request = compiled.create_infer_request()

    def run(self, inputs: Batch) -> Batch:
        try:
            self._request.infer(list(inputs), share_inputs=True)
            found = self._request.output_tensors  # views of what the next run overwrites
            return [as_array(tensor.data) for tensor in found]
        except Exception as error:  # its exceptions share no base class but this
            raise RuntimeFailure(f"OpenVINO does not run the model: {reason_of(error)}") from error


RUNTIME = Runtime(summary="OpenVINO, CPU, float32", format="onnx", probe=_probe, open=_Session, extra="openvino")
