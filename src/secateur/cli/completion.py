"""What the shell offers after a Tab. It must be fast and must never fail: files are looked at, nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

STATE = "mlruns"


def pipelines(context: typer.Context, incomplete: str) -> list[str]:
    """Names in the project's pipelines/ and those that come with the package."""
    from secateur.definition.resolve import shipped

    folders = (_project(context) / "pipelines", shipped("pipelines"))
    return _fitting(incomplete, (file.stem for folder in folders for file in folder.glob("*.yaml")))


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of the project's runs."""
    return _fitting(incomplete, (file.parent.name for file in _runs(context).glob("*/run.json")))


def finalists(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the finalists of the run that stands before."""
    run = context.params.get("run_id") or "*"
    return _fitting(incomplete, (file.parent.name for file in _runs(context).glob(f"{run}/finalists/*/result.json")))


def metrics(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the metrics that come with the package, and the project's own that its runs have measured."""
    import json

    known = {"accuracy", "device_accuracy", "damage", "latency", "throughput", "memory", "energy"}
    known |= {"size", "download", "macs", "parameters", "nonzero"}
    for file in _runs(context).glob("*/dense/selection.json"):
        known |= set(json.loads(file.read_text(encoding="utf-8")))
    return _fitting(incomplete, known)


def listings(incomplete: str) -> list[str]:
    """What `secateur list` lists."""
    return _fitting(incomplete, LISTINGS)


LISTINGS = ("methods", "samplers", "runtimes", "devices", "metrics", "workloads", "trainers", "pipelines")
"""The keys of `secateur.pipelines.catalogue.CATALOGUE`, which is slow to import."""


def _project(context: typer.Context) -> Path:
    return Path(context.params.get("project") or Path())


def _runs(context: typer.Context) -> Path:
    return _project(context) / STATE / "runs"


def _fitting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
