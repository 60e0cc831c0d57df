"""What there is to choose from, and the JSON Schemas of the definitions with those names in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur.agent.runtimes import RUNTIMES, Available
from secateur.compression.saliency import METHODS
from secateur.definition import EvaluatorDefinition, PipelineDefinition, SearchSpaceDefinition, shipped
from secateur.evaluators import METRICS
from secateur.evaluators.devices import DEVICES
from secateur.search.samplers import SAMPLERS
from secateur.workloads import SHIPPED

Entries = list[dict[str, str]]


def _methods() -> Entries:
    needs = {
        name: "calibration data" if m.needs_gradients else "batch norm" if m.needs_batch_norm else ""
        for name, m in METHODS.items()
    }
    return [{"name": name, "what": m.summary, "needs": needs[name], "extra": ""} for name, m in METHODS.items()]


def _samplers() -> Entries:
    return [{"name": name, "what": s.summary, "extra": s.extra} for name, s in SAMPLERS.items()]


def _runtimes() -> Entries:
    listed = []
    for name, runtime in RUNTIMES.items():
        found = runtime.probe(runtime.chosen({}))
        state = f"available, {found.version}" if isinstance(found, Available) else f"not here: {found.reason}"
        options = "; ".join(f"{option}: {', '.join(values)}" for option, values in runtime.options.items())
        listed.append(
            {"name": name, "what": runtime.summary, "options": options, "on this host": state, "extra": runtime.extra}
        )
    return listed


def _devices() -> Entries:
    return [{"name": name, "what": what, "extra": "ssh" if name == "ssh" else ""} for name, what in DEVICES.items()]


def _metrics() -> Entries:
    return [
        {"name": name, "what": m.summary, "usual direction": m.direction, "extra": ""} for name, m in METRICS.items()
    ]


def _workloads() -> Entries:
    return [{"name": name, "what": what, "extra": ""} for name, what in SHIPPED.items()]


def _pipelines(project: Path) -> Entries:
    """Those of the project, then those that come with the package; what cannot be read is listed with the reason."""
    own, ours = project / "pipelines", shipped("pipelines")
    listed = {}
    for folder in (ours, own):
        for file in sorted(folder.glob("*.yaml")):
            listed[file.stem] = {"name": file.stem, "what": _purpose(file), "file": str(file)}
    return [listed[name] for name in sorted(listed)]


def _purpose(file: Path) -> str:
    """The first sentence of a pipeline's first comment, which says what it is for; else its first key."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith("#") and "yaml-language-server" not in line:
            return line.lstrip("# ").partition(". ")[0].rstrip(" .")
        if line and not line.startswith("#"):
            return line
    return ""


CATALOGUE: dict[str, Callable[[Path], Entries]] = {
    "methods": lambda _: _methods(),
    "samplers": lambda _: _samplers(),
    "runtimes": lambda _: _runtimes(),
    "devices": lambda _: _devices(),
    "metrics": lambda _: _metrics(),
    "workloads": lambda _: _workloads(),
    "pipelines": _pipelines,
}
"""listing → its entries, given the project's folder; `extra` names the optional dependency that an entry needs."""


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas by kind, with the names that the registries know, so that an editor can offer them."""
    space = SearchSpaceDefinition.model_json_schema()
    space["$defs"]["GroupRule"]["properties"]["methods"]["items"]["enum"] = sorted(METHODS)
    evaluator = EvaluatorDefinition.model_json_schema()
    evaluator["properties"]["runtime"]["enum"] = sorted(RUNTIMES)
    pipeline = PipelineDefinition.model_json_schema(by_alias=True)
    definitions = pipeline["$defs"]
    definitions["GroupRule"] = space["$defs"]["GroupRule"]
    definitions["EvaluatorDefinition"]["properties"].update(evaluator["properties"])
    definitions["SearchDefinition"]["properties"]["sampler"]["enum"] = sorted(SAMPLERS)
    by_name = {"type": "string", "description": "A name in the project's folder, or a path to a YAML file."}
    for key in ("search_space", "evaluator"):
        pipeline["properties"][key] = {"anyOf": [by_name, pipeline["properties"][key]]}
    factory = {"type": "string", "description": "`module:attribute` or `path/to/file.py:attribute`."}
    pipeline["properties"]["workload"] = {"anyOf": [factory, pipeline["properties"]["workload"]]}
    return {"pipeline": pipeline, "search_space": space, "evaluator": evaluator}
