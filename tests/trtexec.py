"""A stand-in for NVIDIA's trtexec: the same words go in, files of the same form come out, ONNX Runtime computes. No GPU is timed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

BANNER = "&&&& RUNNING TensorRT.trtexec [TensorRT v100700] [b23] # trtexec"
"""As TensorRT 10.7 begins; 8.6 says v8602."""

PROGRAM = """\
#!{python}
import json, os, sys, time
from pathlib import Path
import numpy as np

words = dict((word[2:].split("=", 1) + [""])[:2] for word in sys.argv[1:])
with open(os.environ["TRTEXEC_CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\\n")
print("{banner} " + " ".join(sys.argv[1:]))
if "help" in words:
    sys.exit(0)

def fail(why):
    print("[11/26/2026-12:00:00] [I] === Model Options ===")
    print("[11/26/2026-12:00:00] [E] " + why)
    print("[11/26/2026-12:00:00] [E] Engine set up failed")
    print("&&&& FAILED TensorRT.trtexec")
    sys.exit(1)

import onnxruntime
onnxruntime.set_default_logger_severity(4)
file = words.get("onnx") or words["loadEngine"]
try:
    session = onnxruntime.InferenceSession(file)
except Exception:
    fail("[TRT] ModelImporter.cpp: Failed to parse ONNX model from file: " + file)
dynamic = any(isinstance(side, str) for entry in session.get_inputs() for side in entry.shape)
if dynamic and "shapes" not in words:
    fail("Dynamic dimensions required for input: " + session.get_inputs()[0].name + ", but no shapes were provided.")
if not dynamic and "shapes" in words:
    fail("Static model does not take explicit shapes since the shape of inference tensors will be determined by the model itself")
if "onnx" in words:
    Path(words["saveEngine"]).write_bytes(Path(file).read_bytes())
    sys.exit(0)
if dynamic:
    shapes = dict(pair.rsplit(":", 1) for pair in words["shapes"].split(","))
    shapes = {{name: [int(side) for side in text.split("x")] for name, text in shapes.items()}}
else:
    shapes = {{entry.name: entry.shape for entry in session.get_inputs()}}
types = {{"tensor(float)": np.float32, "tensor(int64)": np.int64}}
given = dict(pair.split(":", 1) for pair in words.get("loadInputs", "").split(",") if pair)
feeds = {{}}
for entry in session.get_inputs():
    dtype, shape = types[entry.type], shapes[entry.name]
    feeds[entry.name] = np.fromfile(given[entry.name], dtype).reshape(shape) if given else np.zeros(shape, dtype)
times = []
try:
    for _ in range(int(words["iterations"])):
        begun = time.perf_counter()
        outputs = session.run(None, feeds)
        times.append((time.perf_counter() - begun) * 1e3)
except Exception:
    fail("Error Code 3: API Usage Error (Parameter check failed, condition: engineDims.d[i] == dims.d[i])")
if "exportTimes" in words:
    rows = ["{{ \\"startEnqMs\\" : 0.1, \\"endEnqMs\\" : 0.2, \\"startH2dMs\\" : 0.1, \\"endH2dMs\\" : 0.2, \\"startComputeMs\\" : 0.2, "
            "\\"endComputeMs\\" : 0.9, \\"startD2hMs\\" : 0.9, \\"endD2hMs\\" : 1, \\"h2dMs\\" : 0.1, \\"computeMs\\" : 0.7, "
            "\\"d2hMs\\" : 0.1, \\"latencyMs\\" : %g }}" % milliseconds for milliseconds in times]
    Path(words["exportTimes"]).write_text("[\\n  " + "\\n, ".join(rows) + "\\n]\\n")
if "exportOutput" in words:
    rows = ["{{ \\"name\\" : \\"%s\\"\\n  , \\"dimensions\\" : \\"%s\\"\\n  , \\"values\\" : [ %s ]\\n  }}" % (
        entry.name, "x".join(map(str, value.shape)), ", ".join("%.9g" % number for number in value.ravel()))
        for entry, value in zip(session.get_outputs(), outputs)]
    rows.reverse()  # its outputs come in no particular order
    Path(words["exportOutput"]).write_text("[\\n  " + "\\n, ".join(rows) + "\\n]\\n")
"""


def install(folder: Path, monkeypatch) -> Path:
    """Put it on the PATH. Returns a file with the arguments of each call, a JSON object a line."""
    folder.mkdir(exist_ok=True)
    program, calls = folder / "trtexec", folder / "calls"
    program.write_text(PROGRAM.format(python=sys.executable, banner=BANNER))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TRTEXEC_CALLS", str(calls))
    return calls
