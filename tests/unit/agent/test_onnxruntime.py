"""ONNX Runtime, where it would do something else than it was asked for."""

from __future__ import annotations

import pytest

from secateur.agent.runtimes import RUNTIMES, RuntimeFailure, Settings
from unit.evaluators.devices.test_agent import perceptron


def test_a_provider_that_silently_gives_way_to_the_cpu_is_a_failure(tmp_path, monkeypatch):
    import onnxruntime

    file = tmp_path / "model.onnx"
    file.write_bytes(perceptron(4))
    whole = onnxruntime.InferenceSession
    # A build for CUDA whose libraries are missing: it prints a warning and computes on the CPU.
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, **_: whole(path, options))
    with pytest.raises(RuntimeFailure, match="it took CPUExecutionProvider, not CUDAExecutionProvider"):
        RUNTIMES["onnxruntime"].open(file, Settings(options={"provider": "cuda"}))
