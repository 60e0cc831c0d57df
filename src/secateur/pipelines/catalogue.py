"""What there is to choose from, and the JSON Schemas of the definitions with those names in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from secateur.agent.runtimes import Available, Runtime
from secateur.compression.criteria import CRITERIA, Criterion
from secateur.compression.transforms import TRANSFORMS
from secateur.definition import DEVICE_KINDS, EvaluatorDefinition, PipelineDefinition, SearchSpaceDefinition, shipped
from secateur.errors import PluginError
from secateur.evaluators import METRICS
from secateur.evaluators.devices import DEVICES
from secateur.evaluators.runtimes import RUNTIMES
from secateur.plugins import OURS, Registry
from secateur.records import Edit
from secateur.recovery.trainers import TRAINERS
from secateur.search.samplers import SAMPLERS
from secateur.search_spaces import all_methods
from secateur.workloads import SHIPPED, WORKLOADS

T = TypeVar("T")
Entries = list[dict[str, str]]


def _listed(registry: Registry[T], row: Callable[[T], dict[str, str]]) -> Entries:
    """Every entry with its distribution; a plug-in that cannot be used is listed with the reason."""
    listed = []
    for name in registry:
        try:
            facts = row(registry[name])
        except PluginError as error:
            facts = {"what": str(error)}
        listed.append({"name": name, **facts, "from": registry.distribution(name)})
    headings = dict.fromkeys(heading for entry in listed for heading in entry)
    return [{heading: entry.get(heading, "") for heading in headings} for entry in listed]


def _criterion(criterion: Criterion) -> dict[str, str]:
    return {"what": criterion.summary, "needs": criterion.needs, "extra": criterion.extra}


def _methods() -> Entries:
    """Each kind of edit with each criterion of what it takes: channels, weights, blocks."""
    criteria = {unit: _listed(registry, _criterion) for unit, registry in CRITERIA.items()}
    return [
        {**entry, "name": Edit(name, 0, entry["name"]).method}
        for name, transform in TRANSFORMS.items()
        for entry in criteria[transform.unit]
    ]


def _runtime(runtime: Runtime) -> dict[str, str]:
    probed = runtime.probe(runtime.chosen({}))
    state = f"available, {probed.version}" if isinstance(probed, Available) else f"not here: {probed.reason}"
    options = "; ".join(f"{option}: {', '.join(values)}" for option, values in runtime.options.items())
    return {"what": runtime.summary, "options": options, "on this host": state, "extra": runtime.extra}


def _devices() -> Entries:
    ours = [
        {"name": k, "what": what, "extra": "ssh" if k == "ssh" else "", "from": OURS} for k, what in DEVICES.items()
    ]
    return [*ours, *_listed(DEVICE_KINDS, lambda kind: {"what": kind.summary, "extra": ""})]


def _workloads() -> Entries:
    ours = [{"name": name, "what": what, "extra": "", "from": OURS} for name, what in SHIPPED.items()]
    return [*ours, *_listed(WORKLOADS, lambda made: {"what": (made.__doc__ or "").partition("\n")[0], "extra": ""})]


def _trainers() -> Entries:
    ours = [{"name": "null", "what": "the built-in trainer: the keys of `recover`", "extra": "", "from": OURS}]
    return [*ours, *_listed(TRAINERS, lambda train: {"what": (train.__doc__ or "").partition("\n")[0], "extra": ""})]


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
    "samplers": lambda _: _listed(SAMPLERS, lambda s: {"what": s.summary, "extra": s.extra}),
    "runtimes": lambda _: _listed(RUNTIMES, _runtime),
    "devices": lambda _: _devices(),
    "metrics": lambda _: _listed(METRICS, lambda m: {"what": m.summary, "usual direction": m.direction, "extra": ""}),
    "workloads": lambda _: _workloads(),
    "trainers": lambda _: _trainers(),
    "pipelines": _pipelines,
}
"""listing → its entries, given the project's folder; `extra` names the optional dependency that an entry needs."""


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas by kind, with the names that the registries know, so that an editor can offer them."""
    space = SearchSpaceDefinition.model_json_schema()
    space["$defs"]["GroupRule"]["properties"]["methods"]["items"]["enum"] = sorted(all_methods())
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
