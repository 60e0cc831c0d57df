"""TensorRT through `trtexec`, NVIDIA's own program: it builds an engine, times it on the GPU and writes what it found as JSON.

Every call is a process that starts CUDA and loads the engine, a second or so on a small board; engines are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..processes import die_with
from .base import (
    ROUNDING,
    Array,
    Available,
    Batch,
    Clock,
    Probe,
    Runtime,
    RuntimeFailure,
    Session,
    Settings,
    Unavailable,
    reason_of,
)
from .onnx_interface import interface_of

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
"""Where JetPack and NVIDIA's packages and images put it, off the PATH."""
WARM_UP_MS = 200
"""Of the GPU before a block, whose clock rises with work."""
_PRECISIONS = {"float32": ("--noTF32",), "float16": ("--fp16", "--sparsity=enable")}
_ROUNDING = {"float32": ROUNDING, "float16": 2e-2}
_SKIPS = {
    "n_m": "if they are 2:4, on a GPU of compute capability 8.0 (Ampere) or newer, in layers that this makes faster",
}
"""In float16. Source: NVIDIA TensorRT developer guide, "Sparsity"."""
_VERSION_LINE = "TensorRT v"


def _program() -> str | None:
    return shutil.which("trtexec") or next((place for place in PLACES if os.access(place, os.X_OK)), None)


def _probe(options: Mapping[str, str]) -> Probe:
    program = _program()
    if program is None:
        return Unavailable(f"trtexec is neither on the PATH nor at {PLACES[0]}: it comes with TensorRT (JetPack)")
    try:
        return Available(f"{_version(program)} {options.get('precision', 'float32')}, {_gpu()}")
    except (OSError, subprocess.SubprocessError) as error:
        return Unavailable(f"{program} does not start: {reason_of(error)}")


def _version(program: str) -> str:
    """As its banner says it (`[TensorRT v8602]`, `[TensorRT v100700]`)."""
    banner = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60, check=False).stdout  # noqa: S603 # found above
    _, found, rest = banner.partition(_VERSION_LINE)
    return f"v{rest.split(']')[0].strip()}" if found else "of an unknown version"


def _gpu() -> str:
    """The GPU's name and driver; on a Jetson, which has no nvidia-smi of use, the board's model."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 # fixed words
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        return Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        return "unknown GPU"


class _Session(Session):
    """An ONNX file; an engine for the shapes of its first batch is built, or found, when that comes."""

    def __init__(self, model: Path, settings: Settings) -> None:
        program = _program()
        if program is None:
            raise RuntimeFailure("TensorRT does not load the model: trtexec has gone")
        self._program, self._model, self._settings = program, model, settings
        self._precision = RUNTIME.chosen(settings.options)["precision"]
        try:
            self._interface = interface_of(model.read_bytes())
        except ValueError as error:
            raise RuntimeFailure(f"TensorRT does not load the model: {error}") from error
        self._engine: tuple[list[str], Path] | None = None

    def run(self, inputs: Batch) -> Batch:
        with tempfile.TemporaryDirectory() as folder:
            given = []
            for number, (name, value) in enumerate(zip(self._interface.inputs, inputs)):  # Python 3.9
                file = Path(folder) / f"{number}.bin"
                np.ascontiguousarray(value).tofile(file)
                given.append(f"{name}:{file}")
            written = Path(folder) / "outputs.json"
            words = ["--iterations=1", "--warmUp=0", "--duration=0", f"--exportOutput={written}"]
            self._infer(inputs, [*words, f"--loadInputs={','.join(given)}"])
            outputs = outputs_in(written)
            return [outputs[name] for name in self._interface.outputs]

    def block(self, batches: Sequence[Batch], first: int, count: int, clock: Clock = time.perf_counter) -> list[float]:
        """By the GPU's clock: transfers there and back and the computation. One process, so every run takes the same batch."""
        del clock  # trtexec has its own
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "times.json"
            words = [f"--iterations={count}", f"--warmUp={WARM_UP_MS}", "--duration=0", f"--exportTimes={written}"]
            self._infer(batches[first % len(batches)], words)
            times = times_in(written)
        if len(times) < count:
            raise RuntimeFailure(f"TensorRT does not run the model: {len(times)} of {count} runs were timed")
        return times[:count]

    def _infer(self, inputs: Batch, words: Sequence[str]) -> None:
        shapes = []
        if self._interface.dynamic:  # a static model must not be told its shapes
            named = zip(self._interface.inputs, inputs)  # Python 3.9
            shapes = ["--shapes=" + ",".join(f"{name}:{'x'.join(map(str, value.shape))}" for name, value in named)]
        engine = self._engine_for(shapes)
        self._call([f"--loadEngine={engine}", *shapes, *words], "does not run the model")

    def _engine_for(self, shapes: list[str]) -> Path:
        """An engine, built once and kept by all that it depends on. shapes: the argument that says them, where it is needed."""
        if self._engine is not None and self._engine[0] == shapes:
            return self._engine[1]
        content = hashlib.sha256(self._model.read_bytes()).hexdigest()
        wanted = [*_PRECISIONS[self._precision], *shapes]
        target = f"{content} {_gpu()} {_version(self._program)} {' '.join(wanted)}"
        folder = self._settings.cache
        assert folder is not None  # noqa: S101 # it is opened by the agent only, which has one
        folder.mkdir(exist_ok=True, mode=0o700)
        engine = folder / f"{hashlib.sha256(target.encode()).hexdigest()}.engine"
        if engine.is_file():
            os.utime(engine)  # used: not one of the oldest
        else:
            begun = engine.with_suffix(f".{os.getpid()}")
            words = [f"--onnx={self._model}", f"--saveEngine={begun}", "--skipInference", *wanted]
            self._call(words, "does not load the model")
            begun.replace(engine)
        self._engine = (shapes, engine)
        return engine

    def _call(self, words: Sequence[str], otherwise: str) -> None:
        done = subprocess.run(  # noqa: S603 # found above
            [self._program, *words],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=partial(die_with, os.getpid()),
        )
        if done.returncode != 0:
            raise RuntimeFailure(f"TensorRT {otherwise}: {complaint(done.stdout + done.stderr)}")


def times_in(written: Path) -> list[float]:
    """Seconds of each run, from what `--exportTimes` wrote: a list of objects with `latencyMs`."""
    return [float(run["latencyMs"]) / 1e3 for run in _listed(written)]


def outputs_in(written: Path) -> dict[str, Array]:
    """Outputs by name, from what `--exportOutput` wrote: objects with `name`, `dimensions` (`1x10`) and `values`."""
    return {
        entry["name"]: np.array(entry["values"], np.float32).reshape(
            [int(side) for side in entry["dimensions"].split("x")]
        )
        for entry in _listed(written)
    }


def _listed(written: Path) -> list[dict[str, Any]]:
    try:
        times = json.loads(written.read_text())
    except (OSError, ValueError) as error:
        raise RuntimeFailure(f"TensorRT does not run the model: it left no readable {written.name}") from error
    return list(times)


def complaint(output: str) -> str:
    """The first error line (`[11/26/2026-12:00:00] [E] …`) without its date, or the last line of all."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line.partition("[E]")[2].strip() for line in lines if "[E]" in line]
    return (errors or lines or ["it said nothing"])[0 if errors else -1][:300]


RUNTIME = Runtime(
    summary="TensorRT, NVIDIA GPU, through trtexec",
    format="onnx",
    probe=_probe,
    open=_Session,
    options={"precision": tuple(_PRECISIONS)},
    in_process=False,
    rounding=lambda options: _ROUNDING[options.get("precision", "float32")],
    skips=lambda options: _SKIPS if options.get("precision") == "float16" else {},
)
