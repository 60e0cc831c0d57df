"""One measurement, in a process of its own: files are checked, the device is taken, candidate and reference are compared."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import math
import os
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .copies import Copies
from .latency import VERSION, Comparison, Protocol, compare
from .machine import State, energy_counters, read_counters, spent_between, state
from .reference_times import ReferenceTimes
from .runtimes import RUNTIMES, Array, Batch, RuntimeFailure, Session, Settings

ENERGY_SECONDS = 1.0
"""Time over which energy is read: counters are updated about every millisecond."""
METER_SECONDS = 30.0
"""Within which the user's meter has to answer."""
KEPT_BYTES = 512 * 2**20
"""Pushed files that stay on the device, and as much of engines that were built there; the oldest go first."""
SLOWED = 0.05
"""A reference that ends so much slower than it began has been throttled, or disturbed all the time."""


class Refused(Exception):
    """The request cannot be served.

    kind: `missing` or `corrupt` (a file; push it again), `failed` (this model's own fault), `meter` (the energy command's fault).
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def measure(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Serve one request; what it may hold is in `secateur.evaluators.devices.conversation`. folder: where pushed files lie.

    Raises Refused.
    """
    files = {name: _checked(folder, entry) for name, entry in request["files"].items()}
    runtime = RUNTIMES[request["runtime"]]
    cache = folder / "engines"
    settings = Settings(request["threads"], request.get("options", {}), cache)
    batches = _batches(files["inputs"])
    figures = set(request["figures"])
    if not runtime.in_process and not figures <= {"latency"}:
        raise Refused(
            "failed", f"{request['runtime']} runs models in other processes: their memory and energy are not measured"
        )
    cores = _pin(request["threads"])
    with _device_to_itself(folder), _failures_named():
        answer: dict[str, Any] = {"protocol": VERSION, "cores": sorted(cores)}
        if "memory" in figures:
            for side in ("candidate", "reference"):
                answer[f"{side}_memory_bytes"] = _peak_memory(request["runtime"], files[side], settings, batches)
        timing = Protocol(**request["timing"])
        copies = Copies(lambda side: runtime.open(files[side], settings), _bytes(files), batches, whole=timing.whole)
        if "parity" in files:
            answer["parity"] = [
                [_packed(x) for x in copies.candidate.run(batch)] for batch in _batches(files["parity"])
            ]
        if "latency" in figures:
            answer.update(_timed(copies, timing, cores, _Canary(request, folder)))
        if "energy" in figures:
            answer["energy_mj"] = _energy(copies.candidate, batches, request.get("energy_command"))
        if "sample" in files:
            outputs = [copies.candidate.run(batch) for batch in _batches(files["sample"])]
            answer["sample"] = _written([np.concatenate(parts) for parts in zip(*outputs)], folder)  # Python 3.9
    for place in (folder / "files", cache):
        _forget_the_oldest(place, keep=set(files.values()))
    return answer


def _bytes(files: dict[str, Path]) -> int:
    """Of one copy of both models."""
    return sum(files[side].stat().st_size for side in ("candidate", "reference"))


class _Canary:
    """The reference of a request, with what the device remembers of it."""

    def __init__(self, request: dict[str, Any], folder: Path) -> None:
        files = request["files"]
        about = [files["reference"]["sha256"], files["inputs"]["sha256"]]
        about += [request["runtime"], request["threads"], sorted(request.get("options", {}).items())]
        self._key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        self._times = ReferenceTimes(folder)

    def compare(self, copies: Copies, protocol: Protocol) -> Comparison:
        """Judged by what the reference takes on the quiet device."""
        comparison = compare(copies, protocol, self._times.seconds(self._key))
        self._times.note(self._key, comparison.level, disturbed=comparison.disturbed)
        return comparison


def _timed(copies: Copies, protocol: Protocol, cores: set[int], canary: _Canary) -> dict[str, Any]:
    before = state(cores)
    comparison = canary.compare(copies, protocol)
    after = state(cores)
    return {
        "ratio": comparison.ratio,
        "interval": list(comparison.interval),
        "rounds": comparison.rounds,
        "copies": comparison.copies,
        "candidate_ms": _summary(comparison.runs),
        "reference_ms": _summary(comparison.reference_runs),
        "drift": comparison.drift,
        "disturbed": comparison.disturbed,
        "waited": comparison.waited,
        "throttled": _throttled(before, after, comparison),
        "before": asdict(before),
        "after": asdict(after),
    }


def _summary(runs: Array) -> dict[str, float]:
    """Milliseconds of single runs."""
    return {
        "min": float(runs.min() * 1e3),
        "p50": float(np.median(runs) * 1e3),
        "p90": float(np.percentile(runs, 90) * 1e3),
    }


def _throttled(before: State, after: State, comparison: Comparison) -> bool:
    """By the device's own word, by its counter, or by a reference that got slower while the clock went down."""
    counted = (after.throttle_count or 0) > (before.throttle_count or 0)
    slower = before.frequency_mhz and after.frequency_mhz and after.frequency_mhz < 0.9 * before.frequency_mhz
    return bool(before.throttled or after.throttled or counted or (slower and comparison.drift > SLOWED))


def _checked(folder: Path, entry: dict[str, str]) -> Path:
    """A pushed file whose bytes are what the host says they are."""
    path = folder / entry["path"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Refused("missing", entry["path"]) from None
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise Refused("corrupt", entry["path"])
    with contextlib.suppress(OSError):
        os.utime(path)  # used: not one of the oldest
    return path


def _batches(file: Path) -> list[Batch]:
    """The arrays of an .npz file, `<batch>_<input>` in order."""
    with np.load(file, allow_pickle=False) as stored:
        arrays = {tuple(int(part) for part in name.split("_")): stored[name] for name in stored.files}
    count = 1 + max(batch for batch, _ in arrays)
    return [[array for key, array in sorted(arrays.items()) if key[0] == batch] for batch in range(count)]


def _pin(threads: int) -> set[int]:
    """Keep this process to as many cores as it has threads, the last ones: the first serve interrupts on many boards."""
    if not hasattr(os, "sched_setaffinity"):
        return set(range(threads))
    cores = set(sorted(os.sched_getaffinity(0))[-threads:])
    os.sched_setaffinity(0, cores)
    return cores


@contextlib.contextmanager
def _device_to_itself(folder: Path) -> Iterator[None]:
    """One measurement at a time on a device, whoever asks for it."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _failures_named() -> Iterator[None]:
    try:
        yield
    except RuntimeFailure as error:
        raise Refused("failed", str(error)) from error
    except MemoryError as error:
        raise Refused("failed", "the device has not enough memory for it") from error


def _peak_memory(runtime: str, model: Path, settings: Settings, batches: Sequence[Batch]) -> int:
    """Bytes by which a process that opens the model and runs it three times grows at its peak."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            start = _resident_peak()
            session = RUNTIMES[runtime].open(model, settings)
            for number in range(3):
                session.run(batches[number % len(batches)])
            os.write(send, str(_resident_peak() - start).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeFailure("a process that opens the model died: its memory could not be measured")
    return int(text)


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _energy(session: Session, batches: Sequence[Batch], command: str | None) -> float:
    """Millijoules of one run, everything that the meter sees included. command: prints the joules spent so far."""
    counters = energy_counters()
    if command is None and not counters:
        raise Refused("failed", "energy cannot be read here: no RAPL counter, and no energy_command")

    def reading() -> Any:
        if command is None:
            return read_counters(counters)
        shell = ["sh", "-c", command]
        try:
            printed = subprocess.run(  # noqa: S603 # the user's own
                shell, capture_output=True, text=True, errors="replace", timeout=METER_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Refused("meter", f"energy_command printed nothing within {METER_SECONDS:g} s") from None
        try:
            joules = float(printed.stdout)
        except ValueError:
            joules = math.nan
        if not math.isfinite(joules):
            complaint = f" ({printed.stderr.strip().splitlines()[-1][:120]})" if printed.stderr.strip() else ""
            raise Refused("meter", f"energy_command printed {printed.stdout[:80]!r}{complaint}, not a number of joules")
        return joules

    before, runs, started = reading(), 0, time.perf_counter()
    while time.perf_counter() - started < ENERGY_SECONDS:
        session.run(batches[runs % len(batches)])
        runs += 1
    after = reading()
    joules = after - before if command is not None else spent_between(before, after)
    return joules * 1e3 / runs


def _packed(array: Array) -> dict[str, Any]:
    """An array as JSON takes it."""
    return {"shape": list(array.shape), "dtype": array.dtype.str, "data": base64.b64encode(array.tobytes()).decode()}


def _written(outputs: Batch, folder: Path) -> str:
    """Keep outputs in a file for the host to fetch. Returns its name."""
    name = f"outputs-{os.getpid()}.npz"
    with (folder / name).open("wb") as stream:
        np.savez(stream, *outputs)
    return name


def _forget_the_oldest(place: Path, keep: set[Path]) -> None:
    files = [entry for entry in place.iterdir() if entry.is_file()] if place.is_dir() else []
    entries = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in entries:
        total += file.stat().st_size
        if total > KEPT_BYTES and file not in keep:
            file.unlink()
