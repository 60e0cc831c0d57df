"""PyTorch itself, on the CPU: eager, or compiled by Inductor. Reads what `torch.export.save` writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .base import Available, Batch, Probe, Runtime, RuntimeFailure, Session, Settings, Unavailable, reason_of

_COMPILERS = ("c++", "g++", "clang++")


def _probe(options: Mapping[str, str]) -> Probe:
    try:
        import torch
    except ImportError as error:
        return Unavailable(f"torch cannot be imported ({reason_of(error)}): pip install torch")
    mode = options.get("mode", "eager")
    if mode == "compile" and not any(map(shutil.which, _COMPILERS)):
        return Unavailable(f"torch.compile needs a C++ compiler there; none of {', '.join(_COMPILERS)} is on the PATH")
    return Available(f"{torch.__version__} ({mode})")


class _Session(Session):
    def __init__(self, model: Path, settings: Settings) -> None:
        import torch

        self._torch = torch
        if settings.cache is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(settings.cache / "inductor")
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes that would outlive this one
        torch.set_num_threads(settings.threads)
        try:
            module: Any = torch.export.load(model).module()
        except Exception as error:  # whatever an archive that is none raises
            raise RuntimeFailure(f"torch does not load the model: {reason_of(error)}") from error
        compiled = RUNTIME.chosen(settings.options)["mode"] == "compile"
        self._module = torch.compile(module.forward, fullgraph=True, dynamic=False) if compiled else module

    def run(self, inputs: Batch) -> Batch:
        torch = self._torch
        try:
            with torch.inference_mode():
                found = self._module(*(torch.from_numpy(np.array(x)) for x in inputs))
                return [np.asarray(x.numpy()) for x in found]
        except Exception as error:  # a compiler's errors, and those of any operator
            raise RuntimeFailure(f"torch does not run the model: {reason_of(error)}") from error


RUNTIME = Runtime(
    summary="PyTorch, CPU, float32",
    format="pt2",
    probe=_probe,
    open=_Session,
    options={"mode": ("eager", "compile")},
)
