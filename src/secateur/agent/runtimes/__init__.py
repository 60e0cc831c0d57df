"""What runs a model. One small module each; a runtime is an entry in `RUNTIMES`."""

from __future__ import annotations

from collections.abc import Mapping

from . import litert, onnxruntime, openvino, tensorrt, torch
from .base import ROUNDING, Array, Available, Batch, Runtime, RuntimeFailure, Session, Settings, Unavailable

RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": onnxruntime.RUNTIME,
    "openvino": openvino.RUNTIME,
    "litert": litert.RUNTIME,
    "torch": torch.RUNTIME,
    "tensorrt": tensorrt.RUNTIME,
}
"""Every runtime of the package by its name; plug-ins may add others on the host."""

__all__ = [
    "ROUNDING",
    "RUNTIMES",
    "Array",
    "Available",
    "Batch",
    "Runtime",
    "RuntimeFailure",
    "Session",
    "Settings",
    "Unavailable",
]


def check_options(runtime: str, options: Mapping[str, str]) -> str | None:
    """What is wrong with a runtime's options, or None."""
    allowed = RUNTIMES[runtime].options
    for name, value in options.items():
        if name not in allowed:
            return f"{runtime} has no option '{name}'; it has: {', '.join(allowed) or 'none'}"
        if value not in allowed[name]:
            return f"'{name}' is '{value}'; {runtime} allows: {', '.join(allowed[name])}"
    return None
