"""An invented finished run as it lies on disk, ready to be sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from finished import RECORD
from secateur.records import Comparison, GateCheck, Measurement
from secateur.registry import Package

X = np.arange(6, dtype=np.float32).reshape(2, 3)
DIGESTS = {role: f"digest of {role}"[:16] for role in ("train", "calibration", "search", "selection", "test")}


def negation() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["input"], ["output"])],
        "negation",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def package_of(state, record=RECORD) -> Package:
    folder = state / "runs" / record.run_id
    for part in ("dense", *(f.folder for f in record.finalists)):
        (folder / part / "compressed").mkdir(parents=True, exist_ok=True)
        (folder / part / "model.onnx").write_bytes(negation())
        (folder / part / "compressed" / "compressed.json").write_text("{}")
    (folder / "report.html").write_text("<p>")
    return Package(record, folder, state, {"input": X}, {"output": -X}, DIGESTS)


def compared(passed, version=None, alias="champion"):
    """RECORD after a gate. version: that its knee was compared with."""
    check = GateCheck("size", Measurement(1.5, "of the version's", "computed"), "not above it", 1.0, passed)
    return replace(RECORD, comparison=Comparison("f1-aa", alias, version, (check,)))
