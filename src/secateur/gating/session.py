"""A gated ONNX file on a stream: what each frame cost, and which gates were open."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.gating.onnx_graph import THRESHOLD, with_decisions

Array = NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """outputs: by name, (n, …). opened: blocks that ran. macs: multiply-accumulates for a sample. seconds: of the run."""

    outputs: Mapping[str, Array]
    opened: tuple[str, ...]
    macs: int
    seconds: float


class GatedSession:
    """A gated file, opened in ONNX Runtime on the CPU."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        """content: of the file. Raises ModelError where it has no gates."""
        import onnxruntime

        file, self.prices = with_decisions(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # it warns of every input that has a default
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._names = [entry.name for entry in self._session.get_outputs()]

    def frame(self, inputs: Mapping[str, Array], threshold: float = 0.0) -> Frame:
        """Run one frame. inputs: by name, (n, …). threshold: that a gate's logit must exceed for its block to run."""
        given = {**inputs, THRESHOLD: np.array(threshold, np.float32)}
        started = time.perf_counter()
        outputs = dict(zip(self._names, self._session.run(None, given), strict=True))
        seconds = time.perf_counter() - started
        ran = tuple(
            name for name, decision in zip(self.prices.blocks, self._decisions(outputs), strict=True) if decision
        )
        return Frame(outputs, ran, self.prices.of(ran), seconds)

    def _decisions(self, outputs: dict[str, Array]) -> list[bool]:
        """Taken out of the outputs."""
        return [bool(outputs.pop(name)) for name in self._names[-len(self.prices.blocks) :]]
