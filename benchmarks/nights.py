"""Ten nights of retraining on digits that turn a little every day: what serves, what it costs, what is refused, one rollback.

Each night the network is trained on, and `secateur retrain` does the rest. In night 5 the training goes wrong (its labels are
shuffled); in night 7 yesterday's week-old data are delivered, so that what passes the gate is bad on fresh data, and the next
morning `secateur rollback` takes it back. Fresh data are the test digits as the *next* night has them.

Beside it, with the same weights, the first nights are searched anew (`--set retrain.moved=0`, in a project of its own): seconds
and CPU-seconds of both, and whether the gate said the same.

    python benchmarks/nights.py --searched 10 --json OUT --figure OUT.svg
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import drifting_digits
from common import arguments, write_json
from secateur.definition import shipped
from secateur.registry import registry
from secateur.workloads import digits
from secateur.workloads.roles import collect

NIGHTS, QUICK = 10, 3
SPOILT, STALE, AGE = 5, 7, 7
"""The night whose training goes wrong; the one whose data are so many nights old."""


def project(folder: Path) -> Path:
    """The pipeline `nightly` with digits that turn."""
    (folder / "pipelines").mkdir(parents=True)
    text = (shipped("pipelines") / "nightly.yaml").read_text()
    text = text.replace("secateur.workloads.digits:workload", "{factory: drifting_digits.py:workload, weights: none}")
    (folder / "pipelines" / "nightly.yaml").write_text(
        text.replace("{moved", "{weights: drifting_digits.py:train, moved")
    )
    shutil.copy(Path(drifting_digits.__file__), folder)
    return folder


def secateur(folder: Path, *words: str, **environment: str) -> dict[str, Any]:
    """A command of ours: what its last line says, seconds and CPU-seconds, its exit code."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "secateur", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = (done.stdout.splitlines() or [""])[-1]
    return {
        "code": done.returncode,
        "said": json.loads(last) if last.startswith("{") else done.stderr,
        "seconds": time.monotonic() - started,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def champion(folder: Path) -> Path | None:
    """The ONNX file of the version that serves."""
    with registry(folder / "mlruns", None) as server:
        version = server.version("digits-nightly", "@champion")
    if version is None:
        return None
    number = version.number
    for file in (folder / "mlruns" / "runs").glob("*/registry.json"):
        for version in json.loads(file.read_text()):
            if version["version"] == number:
                return file.parent / "finalists" / version["finalist"] / "model.onnx"
    return None


def accuracy(file: Path, night: float) -> float:
    """On the test digits as a night has them."""
    (images,), labels = collect(digits.split(drifting_digits.samples(night)).test)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return float((outputs.argmax(1) == labels.numpy()).mean())


def told(number: int, done: dict[str, Any]) -> dict[str, Any]:
    """A night in short."""
    said = done["said"]
    if not isinstance(said, dict):
        raise SystemExit(said)
    return {
        "night": number,
        "status": said["status"],
        "way": said.get("way"),
        "why": said.get("why"),
        "moved": said.get("profile_moved"),
        "seconds": done["seconds"],
        "cpu": done["cpu"],
    }


def nights(folder: Path, count: int, *options: str, weights: Path | None = None) -> list[dict[str, Any]]:
    """All nights of one project. weights: of another project's nights, which are used instead of training."""
    kept = []
    for number in range(1, count + 1):
        environment = {"NIGHT": str(number)}
        if number == SPOILT:
            environment["SPOILT"] = "1"
        if number == STALE:
            environment["DATA_NIGHT"] = str(number - AGE)
        key = f"night-{number:02d}"
        words = [*options]
        if weights is not None:
            found = weights / "mlruns" / "nights" / "nightly" / key / "weights" / drifting_digits.WEIGHTS
            words += ["--weights", str(found)]
        night = told(number, secateur(folder, "retrain", "nightly", "--run-key", key, *words, **environment))
        if (file := champion(folder)) is not None:
            night["fresh"] = accuracy(file, number + 1)
        first = sorted((folder / "mlruns" / "runs").glob("*/registry.json"), key=lambda f: f.stat().st_mtime)
        night["unchanged"] = accuracy(_knee(first[0].parent), number + 1)
        if number == STALE and night["status"] == "promoted":
            secateur(folder, "rollback", "digits-nightly", "--why", "worse on fresh data")
            file = champion(folder)
            night["rolled_back_to"] = accuracy(file, number + 1) if file is not None else None
        kept.append(night)
        print(json.dumps(night), flush=True)
    return kept


def _knee(run: Path) -> Path:
    return run / "finalists" / json.loads((run / "record.json").read_text())["knee"] / "model.onnx"


def markdown(replayed: list[dict[str, Any]], searched: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| night | outcome | way | profile moved | fresh accuracy of what serves | first champion, unchanged | s (CPU-s) "
        "| searched anew: outcome | s (CPU-s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for night, full in zip_longest(replayed, searched):
        fresh = f"{night['fresh']:.1%}"
        if "rolled_back_to" in night:
            fresh += f"; after the rollback {night['rolled_back_to']:.1%}"
        moved = "–" if night["moved"] is None else f"{night['moved']:.2f}"
        lines.append(
            f"| {night['night']} | {night['status']} | {night['way']} | {moved} | {fresh} | {night['unchanged']:.1%} | "
            f"{night['seconds']:.0f} ({night['cpu']:.0f}) | "
            + (f"{full['status']} | {full['seconds']:.0f} ({full['cpu']:.0f}) |" if full else "– | – |")
        )
    pairs = [(n, f) for n, f in zip(replayed, searched, strict=False) if n["way"] == "replay"]
    if pairs:
        for unit in ("seconds", "cpu"):
            ratios = [n[unit] / f[unit] for n, f in pairs]
            lines.append(
                f"\nA night that replays over one that searches, {unit}: median {np.median(ratios):.2f}, "
                f"{min(ratios):.2f} to {max(ratios):.2f} of {len(ratios)} nights."
            )
    return "\n".join(lines)


def drawn(replayed: list[dict[str, Any]]) -> str:
    """Fresh accuracy over the nights as SVG: of what serves, and of the first champion."""
    lowest = min(min(n["fresh"], n["unchanged"]) for n in replayed)
    floor = np.floor(lowest * 10) / 10

    def at(number: int, value: float) -> str:
        return (
            f"{60 + 600 * (number - 1) / max(1, len(replayed) - 1):.1f},{230 - 200 * (value - floor) / (1 - floor):.1f}"
        )

    lines = ['<text x="60" y="18">accuracy on the next day\'s digits</text>']
    for value in np.arange(floor, 1.001, 0.1):
        y = float(at(1, float(value)).split(",")[1])
        lines.append(
            f'<line x1="60" x2="660" y1="{y}" y2="{y}" stroke="#ddd"/><text x="20" y="{y + 4}">{value:.0%}</text>'
        )
    for name, key, colour, x in (
        ("what serves", "fresh", "#06c", 60),
        ("first champion, unchanged", "unchanged", "#888", 180),
    ):
        points = " ".join(at(n["night"], n[key]) for n in replayed)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        lines.append(f'<text x="{x}" y="262" fill="{colour}">{name}</text>')
    for night in replayed:
        x, y = at(night["night"], night["fresh"]).split(",")
        mark = {"promoted": "#06c"}.get(night["status"], "#c33")
        lines.append(
            f'<circle cx="{x}" cy="{y}" r="4" fill="{mark}"/><text x="{x}" y="246" text-anchor="middle">{night["night"]}</text>'
        )
        if "rolled_back_to" in night:
            there = at(night["night"], night["rolled_back_to"])
            lines.append(
                f'<line x1="{x}" y1="{y}" x2="{there.split(",")[0]}" y2="{there.split(",")[1]}" stroke="#c33"/>'
            )
            lines.append(f'<text x="{float(x) + 8}" y="{float(y) + 4}" fill="#c33">rolled back</text>')
    lines.append('<text x="380" y="262" fill="#c33">refused by the gate, or taken back</text>')
    body = "\n".join(lines)
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 270" {style}>\n{body}\n</svg>\n'


def main() -> None:
    """Live through the nights twice, print the table, write the figure."""
    parser = arguments(__doc__)
    parser.add_argument("--figure", type=Path, help="write the figure here, as SVG")
    parser.add_argument("--searched", type=int, default=NIGHTS, help="nights that are searched anew, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        count, folder = (QUICK if options.quick else NIGHTS), Path(temporary)
        replayed = nights(project(folder / "replay"), count)
        again = "--set", "retrain.moved=0"
        searched = nights(project(folder / "search"), min(count, options.searched), *again, weights=folder / "replay")
    print(markdown(replayed, searched))
    if options.figure:
        options.figure.write_text(drawn(replayed))
    write_json(options.json, {"replayed": replayed, "searched": searched})


if __name__ == "__main__":
    main()
