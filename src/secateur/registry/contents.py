"""What of a run's record becomes metrics, figures, parameters and tags.

Metrics are what people sort and compare runs by: a handful of figures with plain names, and curves over epochs below `training/`.
All figures, with units, intervals and details, are one file per run, `figures.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from secateur.files import sha256_of
from secateur.formatting import outcome
from secateur.records import CHANNELS, ROLES, SCORE, Measurement, Recovered, RunRecord
from secateur.registry.history import STATUS, user
from secateur.registry.package import Package
from secateur.registry.serving import SELECTION, files_of, sha256_tag
from secateur.registry.tracking import DataSet, Point

_LONGEST = 500
"""Characters of a parameter's value."""
_CHANGE = f"{SCORE}_change"
Figures = Mapping[str, Mapping[str, Measurement]]
"""Data role → name → figure."""


def status(record: RunRecord, finalist: Recovered) -> str:
    """What became of a finalist, in one word."""
    if finalist.failure is not None:
        return "failed"
    if finalist.name == record.knee:
        return "knee" if record.comparison is None or record.comparison.passed else "refused"
    verdict = record.verdicts[finalist.name]
    if verdict.veto is not None:
        return "vetoed"
    if not verdict.feasible:
        return "infeasible"
    return "front" if verdict.on_front else "dominated"


def origin(record: RunRecord) -> dict[str, str]:
    """MLflow's own tags of where a run comes from."""
    tags = {"mlflow.source.name": f"secateur run {record.name}", "mlflow.source.type": "LOCAL"}
    if commit := record.environment.get("git_commit"):
        tags["mlflow.source.git.commit"] = commit
    tags["mlflow.user"] = user()
    return tags


def run_points(package: Package) -> list[Point]:
    """The metrics of the whole run: those of its best finalist, and counts."""
    record = package.record
    counts = {
        "trials": sum(t.same_as is None for t in record.trials),
        "finalists": len(record.finalists),
        "registered": len(record.registered),
    }
    best = next((f for f in record.finalists if f.name == record.knee), None)
    headline = [] if best is None else _headline(package, finalist_figures(record, best))
    return headline + [Point(key, value) for key, value in counts.items()]


def parameters(record: RunRecord) -> dict[str, str]:
    """The definition, flat."""
    return dict(_flat(record.definition))


def dense_points(package: Package) -> list[Point]:
    """The metrics of the dense model, under the same names as a finalist's."""
    return _headline(package, package.record.dense)


def finalist_points(package: Package, finalist: Recovered) -> list[Point]:
    """The metrics of a finalist."""
    points = _headline(package, finalist_figures(package.record, finalist))
    losses = finalist.curve or enumerate(finalist.losses, start=1)
    points += [Point("training/loss", loss, step) for step, loss in losses]
    points += [Point("training/score", score, step) for step, score in finalist.scores]
    # The same samples before and after, of the files that are measured: what fine-tuning has brought.
    before, after = finalist.searched.get(SCORE), finalist.on_search
    if finalist.epochs and before is not None and after is not None:
        last = finalist.steps or finalist.epochs
        points += [Point("training/search_score", m.value, s) for m, s in ((before, 0), (after, last))]
    return points


def finalist_figures(record: RunRecord, finalist: Recovered) -> Figures:
    """All figures of a finalist: on selection and test data after recovery, on search data before it."""
    verdict = record.verdicts.get(finalist.name)
    known = [("search", f"{SCORE}_after_recovery", finalist.on_search)]
    if verdict is not None:
        known += [
            ("selection", _CHANGE, verdict.change),
            ("test", SCORE, verdict.test),
            ("test", _CHANGE, verdict.test_change),
        ]
    figures = {"selection": dict(finalist.measurements), "test": {}, "search": dict(finalist.searched)}
    for role, name, measurement in known:
        if measurement is not None:
            figures[role][name] = measurement
    return {role: measurements for role, measurements in figures.items() if measurements}


def figures_file(figures: Figures) -> dict[str, Any]:
    """What `figures.json` holds: data role → figure → value, unit, provenance, samples, interval, device, details."""
    return {role: {name: asdict(measurement) for name, measurement in known.items()} for role, known in figures.items()}


def finalist_parameters(record: RunRecord, finalist: Recovered) -> dict[str, str]:
    """The precision of its numbers, what stays of every group, and the method that chose it."""
    texts = {"precision": finalist.precision}
    for group in record.groups:
        texts[f"{group.name}.channels"] = str(finalist.candidate.width(group.name, group.width))
        for edit in finalist.candidate.edits.get(group.name, ()):
            texts[f"{group.name}.by"] = edit.method
            if edit.transform != CHANNELS:
                texts[f"{group.name}.{edit.transform}"] = edit.text(group.width)
    return texts


def version_tags(package: Package, finalist: Recovered) -> dict[str, str]:
    """The tags of a registered version, by which a later attempt finds it, and the sha256 of each of its files."""
    record = package.record
    tags = {
        "secateur.run_id": record.run_id,
        "secateur.started": record.started,
        "secateur.finalist": finalist.name,
        "secateur.precision": finalist.precision,
        "secateur.device": record.device,
        "secateur.rule": "knee of the front" if finalist.name == record.knee else "on the front",
        "secateur.status": status(record, finalist),
    }
    files = files_of(package.folder / finalist.folder, package.folder / finalist.compressed)
    tags |= {sha256_tag(name): sha256_of(file) for name, file in files.items()}
    tags |= {SELECTION: package.digests["selection"]} if "selection" in package.digests else {}
    tags |= {f"secateur.{key}": record.environment[key] for key in ("run_key", "weights") if key in record.environment}
    if record.comparison is not None:
        knee = finalist.name == record.comparison.finalist
        tags[STATUS] = ("passed" if record.comparison.passed else "failed") if knee else "pending"
        tags |= {"secateur.gate": outcome(record.comparison)} if knee else {}
    for name, measurement in finalist.measurements.items():
        tags |= {f"secateur.{key}": f"{value:.6g}" for key, value in _values(name, measurement).items()}
    verdict = record.verdicts[finalist.name]
    if verdict.test is not None:
        tags["secateur.test_accuracy"] = f"{verdict.test.value:.6g}"
    for name, change in (("change", verdict.change), ("test_change", verdict.test_change)):
        if change is not None:
            tags[f"secateur.{name}"] = "{:.6g} ({:.6g} to {:.6g})".format(change.value, *change.bounds)
    if verdict.veto is not None:
        tags["secateur.no_alias"] = verdict.veto
    return tags


def data_sets(package: Package, roles: Iterable[str] = ROLES) -> dict[str, DataSet]:
    """The data roles: names, sizes and digests, no data."""
    record = package.record
    return {
        role: DataSet(f"{record.workload}/{role}", package.digests[role], role, record.samples[role], record.workload)
        for role in roles
        if role in record.samples and role in package.digests
    }


def _headline(package: Package, figures: Figures) -> list[Point]:
    """What people compare: the score on each role, and objectives, goals, size and speed on selection data.

    MLflow's tables sort columns by name, its pages list metrics as they came: either way those of the score stand together.
    """
    record, data = package.record, data_sets(package)
    places = {SCORE: ("selection", SCORE), _CHANGE: ("selection", _CHANGE)}
    places |= {f"{SCORE}_{role}": (role, SCORE) for role in ("test", "search")}
    others = (*record.objectives, *(goal.metric for goal in record.goals), "size", "macs")
    points = []
    for key, (role, name) in (places | {name: ("selection", name) for name in others}).items():
        if (measurement := figures.get(role, {}).get(name)) is not None:
            points += [Point(k, value, data=data.get(role)) for k, value in _values(key, measurement).items()]
    return points


def _values(name: str, measurement: Measurement) -> dict[str, float]:
    """A figure by its name, latency as a speed-up too."""
    faster = name == "latency" and measurement.unit == "of dense" and measurement.value > 0
    return {name: measurement.value} | ({"speedup": 1 / measurement.value} if faster else {})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and short values, as MLflow's parameters want them."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is not None:
            yield name, str(value)[:_LONGEST]
