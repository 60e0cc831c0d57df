"""What of a run's record becomes metrics, parameters and tags.

MLflow lists metrics in the order in which they come, and draws a section of charts for what stands before a slash. So what a
finalist is judged by (selection data, after recovery) comes first and has plain names; everything else stands below: `search/`
before recovery, `test/`, `interval/`, `detail/`, `training/` over epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secateur.files import sha256_of
from secateur.formatting import outcome
from secateur.records import CHANNELS, ROLES, Measurement, Recovered, RunRecord, Verdict
from secateur.registry.history import STATUS, user
from secateur.registry.package import Package
from secateur.registry.serving import SELECTION, files_of, sha256_tag
from secateur.registry.tracking import DataSet, Point

_LONGEST = 500
"""Characters of a parameter's value."""


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


def run_points(record: RunRecord) -> list[Point]:
    """The metrics of the whole run."""
    counts = {
        "trials": sum(t.same_as is None for t in record.trials),
        "finalists": len(record.finalists),
        "registered": len(record.registered),
    }
    best = next((f for f in record.finalists if f.name == record.knee), None)
    figures = {} if best is None else {f"knee/{p.key}": p.value for p in _plain(best.measurements)}
    return [Point(key, value) for key, value in (counts | figures).items()] + [
        Point(f"seconds/{stage}", seconds) for stage, seconds in record.seconds.items()
    ]


def parameters(record: RunRecord) -> dict[str, str]:
    """The definition, flat."""
    return dict(_flat(record.definition))


def dense_points(record: RunRecord) -> list[Point]:
    """The metrics of the dense model, under the same names as a finalist's."""
    points = []
    for role, measurements in record.dense.items():
        points += _judged(measurements) if role == "selection" else _plain(measurements, f"{role}/")
    return points


def finalist_points(finalist: Recovered, verdict: Verdict | None) -> list[Point]:
    """The metrics of a finalist. verdict: None where it failed."""
    points = _judged(finalist.measurements) + _plain(finalist.searched, "search/")
    if verdict is not None:
        changed = {} if verdict.change is None else {"accuracy_change": verdict.change}
        points += _plain(changed) + _intervals(changed)
        tested = {"accuracy": verdict.test, "accuracy_change": verdict.test_change}
        points += _plain({name: m for name, m in tested.items() if m is not None}, "test/")
    points += [Point("training/loss", loss, epoch) for epoch, loss in enumerate(finalist.losses, start=1)]
    # The same samples before and after: what fine-tuning has brought.
    before, after = finalist.searched.get("accuracy"), finalist.on_search
    if finalist.epochs and before is not None and after is not None:
        points += [Point("training/search_score", m.value, s) for m, s in ((before, 0), (after, finalist.epochs))]
    return points


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
    if record.comparison is not None:
        knee = finalist.name == record.comparison.finalist
        tags[STATUS] = ("passed" if record.comparison.passed else "failed") if knee else "pending"
        tags |= {"secateur.gate": outcome(record.comparison)} if knee else {}
    tags |= {f"secateur.{point.key}": f"{point.value:.6g}" for point in _plain(finalist.measurements)}
    verdict = record.verdicts[finalist.name]
    if verdict.test is not None:
        tags["secateur.test_accuracy"] = f"{verdict.test.value:.6g}"
    for name, change in (("change", verdict.change), ("test_change", verdict.test_change)):
        if change is not None:
            tags[f"secateur.{name}"] = "{:.6g} ({:.6g} to {:.6g})".format(change.value, *change.bounds)
    if verdict.veto is not None:
        tags["secateur.no_alias"] = verdict.veto
    return tags


def data_sets(package: Package) -> list[DataSet]:
    """The data roles: names, sizes and digests, no data."""
    record = package.record
    return [
        DataSet(f"{record.workload}/{role}", package.digests[role], role, record.samples[role], record.workload)
        for role in ROLES
        if role in record.samples and role in package.digests
    ]


def _judged(measurements: Mapping[str, Measurement]) -> list[Point]:
    details = {f"{name}.{key}": value for name, m in measurements.items() for key, value in m.details.items()}
    return _plain(measurements) + _intervals(measurements) + [Point(f"detail/{k}", v) for k, v in details.items()]


def _plain(measurements: Mapping[str, Measurement], prefix: str = "") -> list[Point]:
    points = [Point(f"{prefix}{name}", m.value) for name, m in measurements.items()]
    latency = measurements.get("latency")
    if latency is not None and latency.unit == "of dense" and latency.value > 0:
        points.insert(1, Point(f"{prefix}speedup", 1 / latency.value))
    return points


def _intervals(measurements: Mapping[str, Measurement]) -> list[Point]:
    bounds = {name: m.interval for name, m in measurements.items() if m.interval is not None}
    return [
        Point(f"interval/{name}.{end}", value)
        for name, interval in bounds.items()
        for end, value in zip(("low", "high"), interval, strict=True)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and short values, as MLflow's parameters want them."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is not None:
            yield name, str(value)[:_LONGEST]
