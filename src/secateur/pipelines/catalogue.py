"""What there is to choose from, and the JSON Schemas of the definitions with those names in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from secateur.agent.runtimes import RUNTIMES, Available
from secateur.compression.saliency import METHODS
from secateur.definition import EvaluatorDefinition, PipelineDefinition, SearchSpaceDefinition
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


CATALOGUE: dict[str, Callable[[], Entries]] = {
    "methods": _methods,
    "samplers": _samplers,
    "runtimes": _runtimes,
    "devices": _devices,
    "metrics": _metrics,
    "workloads": _workloads,
}
"""listing → its entries; `extra` names the optional dependency that an entry needs."""


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
