"""ONNX Runtime. Source: onnxruntime.ai; CPU by default, CUDA or TensorRT where its build has those providers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .base import Available, Batch, Probe, Runtime, RuntimeFailure, Session, Settings, Unavailable, reason_of

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}


def _probe(options: Mapping[str, str]) -> Probe:
    try:
        import onnxruntime
    except ImportError as error:
        return Unavailable(f"onnxruntime cannot be imported ({reason_of(error)}): pip install onnxruntime")
    provider = options.get("provider", "cpu")
    if _PROVIDERS[provider] not in onnxruntime.get_available_providers():
        return Unavailable(
            f"this build of onnxruntime has no {_PROVIDERS[provider]}; it has {', '.join(onnxruntime.get_available_providers())}"
        )
    return Available(str(onnxruntime.__version__) + ("" if provider == "cpu" else f" ({provider})"))


class _Session(Session):
    def __init__(self, model: Path, settings: Settings) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised as well; it need not be printed too
        chosen = RUNTIME.chosen(settings.options)
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[chosen["graph"]])
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=[_PROVIDERS[chosen["provider"]]]
            )
        except Exception as error:  # its exceptions share no base class but this
            raise RuntimeFailure(f"ONNX Runtime does not load the model: {reason_of(error)}") from error
        used = self._session.get_providers()[0]
        if used != _PROVIDERS[chosen["provider"]]:  # it falls back to the CPU, and only prints so
            raise RuntimeFailure(
                f"ONNX Runtime does not load the model: it took {used}, not {_PROVIDERS[chosen['provider']]}"
            )
        self._inputs = [entry.name for entry in self._session.get_inputs()]

    def run(self, inputs: Batch) -> Batch:
        try:
            return [np.asarray(x) for x in self._session.run(None, dict(zip(self._inputs, inputs)))]  # Python 3.9
        except Exception as error:  # its exceptions share no base class but this
            raise RuntimeFailure(f"ONNX Runtime does not run the model: {reason_of(error)}") from error


RUNTIME = Runtime(
    summary="ONNX Runtime",
    format="onnx",
    probe=_probe,
    open=_Session,
    options={"provider": tuple(_PROVIDERS), "graph": tuple(_LEVELS)},
)
