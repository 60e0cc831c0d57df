"""What the registry costs as it fills: runs sent to the embedded MLflow, versions promoted and taken back.

One real run of the digits network (no training) is sent again and again under other names, as nights would be: each time a parent
run, the dense model, one finalist and a version. Every call of the registry is timed; what carries files is marked, since that is
the disk's time. The medians of the first and of the last tenth say whether it slows down.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import arguments, table, write_json
from secateur.definition import Override, load_pipeline
from secateur.pipelines.example import load_example
from secateur.pipelines.run import run_pipeline
from secateur.pipelines.state import STATE, find_run
from secateur.registry import Package, Target, publish, registry
from secateur.registry.history import promote, rollback
from secateur.registry.tracking import Tracking

CARRIES_FILES = ("log_file", "log_document", "log_onnx", "files_of", "file_of_run")
Times = dict[str, list[float]]


@contextlib.contextmanager
def timed(times: Times) -> Iterator[None]:
    """Every call of `Tracking` leaves its milliseconds, by name."""
    methods: dict[str, Callable[..., Any]] = {
        name: method for name, method in vars(Tracking).items() if callable(method) and not name.startswith("_")
    }

    def wrapped(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                times.setdefault(name, []).append(1000 * (time.perf_counter() - started))

        return call

    for name, method in methods.items():
        setattr(Tracking, name, wrapped(name, method))
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(Tracking, name, method)


def real_run(project: Path) -> Package:
    """A small run that was not registered, as what is sent."""
    overrides = ["search.trials=4", "recover=null", "register=null", "evaluator.constraints={}"]
    definition, _ = load_pipeline("quick", [Override.parse(text) for text in overrides], project)
    outcome = run_pipeline(definition, project, "quick")
    record, run = outcome.record, find_run(project, None)
    kept = [f for f in record.finalists if f.name == record.knee]
    example = load_example(run)
    digests = json.loads((run.path / "data.json").read_text(encoding="utf-8"))
    return Package(
        replace(record, finalists=tuple(kept)), run.path, run.state, example.inputs, example.outputs, digests
    )


def main() -> None:
    """Fill a registry and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--versions", type=int, help="how many (default 100, quick 10)")
    options = parser.parse_args()
    count = options.versions or (10 if options.quick else 100)
    sent, moved, calls = Times(), Times(), Times()
    with TemporaryDirectory() as folder:
        package = real_run(Path(folder))
        target = Target("digits", "candidate", None)
        with timed(calls):
            for night in range(count):
                started = f"{package.record.started[:-6]}.{night:06d}+00:00"
                record = replace(package.record, run_id=f"{package.record.run_id}-{night}", started=started)
                begun = time.perf_counter()
                publish(replace(package, record=record), target)
                sent.setdefault("send a run", []).append(1000 * (time.perf_counter() - begun))
                with registry(Path(folder) / STATE, None) as server:
                    begun = time.perf_counter()
                    promote(server, "digits", "@candidate", why=f"night {night}")
                    moved.setdefault("promote", []).append(1000 * (time.perf_counter() - begun))
            with registry(Path(folder) / STATE, None) as server:
                for _ in range(count - 1):
                    begun = time.perf_counter()
                    rollback(server, "digits")
                    moved.setdefault("rollback", []).append(1000 * (time.perf_counter() - begun))
                holder = server.version("digits", "@champion")
        if holder is None or holder.number != "1":
            raise SystemExit(f"after as many rollbacks as promotions version 1 should serve, not {holder}")
    rows = []
    for name, own in [*sent.items(), *moved.items(), *sorted(calls.items())]:
        tenth = max(1, len(own) // 10)
        label = f"{name} (files)" if name in CARRIES_FILES else name
        medians = [statistics.median(part) for part in (own, own[:tenth], own[-tenth:])]
        rows.append(
            {"what": label, "times": len(own), "median_ms": medians[0], "first": medians[1], "last": medians[2]}
        )
    table(
        f"{count} versions in the embedded registry, milliseconds",
        ["what", "times", "median", "first tenth", "last tenth"],
        [[r["what"], str(r["times"]), *(f"{r[k]:.1f}" for k in ("median_ms", "first", "last"))] for r in rows],
    )
    write_json(options.json, {"versions": count, "calls": rows})


if __name__ == "__main__":
    main()
