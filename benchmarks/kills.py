"""`kill -9` at random moments of a nightly run, each time gone on with by the same command: what is left behind?

A night has been; the next one, with other weights, is killed with all its processes, half of the times anywhere, half of them while
it judges and registers. Then the same command runs to its end, and everything is counted: versions (one for each finalist that
passed), the alias, the ledger's entries, logged models, files by their sha256, processes.

    python benchmarks/kills.py --json OUT
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common import arguments, write_json
from nights import project, secateur
from secateur.registry import registry
from secateur.registry.history import moves
from secateur.registry.serving import fetched

ROUNDS, QUICK = 20, 3
SMALL = (
    "search.trials=4",
    "search.fidelities={training: []}",
    "evaluator.waiting=0",
    "recover.finalists=2",
    "recover.epochs=1",
    "retrain.moved=0",
)
"""A search, so that every stage is there to be killed in."""
COMMAND = ["retrain", "nightly", "--run-key", "second", *(word for text in SMALL for word in ("--set", text))]
NAME = "digits-nightly"


def killed(folder: Path, after: float, stage: str | None) -> str:
    """Start the night and kill it. after: seconds from its start, or from the first sign of a stage. Returns what it was at."""
    log = folder / "out.txt"
    with log.open("w") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "secateur", *COMMAND],
            cwd=folder,
            env=os.environ | {"NIGHT": "2"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        while stage is not None and stage not in log.read_text() and running.poll() is None:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(after)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    lines = log.read_text().splitlines()
    return lines[-1][:60] if lines else "starting"


def faults(folder: Path, expected: dict[str, Any]) -> list[str]:
    """What is not as an undisturbed night leaves it. expected: versions `before` this night, and finalists `passed` in it."""
    found = []
    state = folder / "mlruns"
    with registry(state, None) as server, tempfile.TemporaryDirectory() as temporary:
        versions, number = [], 1
        while (version := server.version(NAME, str(number))) is not None:
            versions.append(version)
            number += 1
        parts = [(v.tags["secateur.run_id"], v.tags["secateur.finalist"]) for v in versions]
        if len(parts) != len(set(parts)):
            found.append(f"a finalist has two versions: {parts}")
        if len(versions) != expected["before"] + expected["passed"]:
            found.append(f"{len(versions)} versions, not {expected['before']} + {expected['passed']}")
        for version in versions:
            files = fetched(server, version, Path(temporary) / version.number, "onnx")
            if files.altered or "model.onnx" not in files.files:
                found.append(f"version {version.number} cannot be fetched whole: {files.altered}")
        entries = moves(server, NAME)
        if any(
            move.state == "begun" for move in entries
        ):  # one that the kill has cut off is "abandoned", and then one is "done"
            found.append(f"the ledger has an open entry: {entries}")
        champion = server.version(NAME, "@champion")
        if champion is None or champion.number != entries[-1].version:
            found.append("the champion is not the one that the ledger names last")
    left = [str(f.relative_to(folder)) for f in state.rglob(".*.part")]
    found += [f"half-written and left: {left}"] if left else []
    processes = [
        p.info for p in psutil.process_iter(["pid", "cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())
    ]
    return found + ([f"processes are left: {processes}"] if processes else [])


def main() -> None:
    """Kill, go on, count."""
    options = arguments(__doc__).parse_args()
    rounds, draw = (QUICK if options.quick else ROUNDS), np.random.default_rng(0)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        first = project(Path(temporary) / "first")
        begun = secateur(first, *((w != "second" and w) or "first" for w in COMMAND), NIGHT="1")
        before = len(begun["said"]["versions"])
        whole = shutil.copytree(first, Path(temporary) / "whole")
        undisturbed = secateur(whole, *COMMAND, NIGHT="2")
        print(f"undisturbed: {undisturbed['seconds']:.0f} s, {undisturbed['said']['status']}", flush=True)
        for number in range(rounds):
            folder = shutil.copytree(first, Path(temporary) / f"{number}")
            stage = "judging" if number % 2 else None
            after = draw.uniform(0, 3.0 if stage else undisturbed["seconds"])
            at = killed(folder, after, stage)
            ended = secateur(folder, *COMMAND, NIGHT="2")
            said = ended["said"] if isinstance(ended["said"], dict) else {"status": ended["said"], "versions": []}
            wrong = faults(folder, {"before": before, "passed": len(said["versions"] or ())})
            results.append({"after": after, "at": at, "status": said["status"], "code": ended["code"], "faults": wrong})
            print(json.dumps(results[-1]), flush=True)
            shutil.rmtree(folder)
    print(f"{rounds} kills, {sum(bool(r['faults']) or r['code'] not in (0, 3, 4) for r in results)} with faults")
    write_json(options.json, {"kills": results})


if __name__ == "__main__":
    main()
