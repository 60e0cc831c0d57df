"""Runs side by side: what they were asked for, what they found, and whether their figures compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.definition import one_of
from secateur.records import SEARCH, Measurement, RunRecord


@dataclass(frozen=True)
class Comparison:
    """rows: what → a value for each run, in the order of `runs`. warnings: why figures may not compare."""

    runs: tuple[str, ...]
    rows: Mapping[str, tuple[Any, ...]]
    warnings: tuple[str, ...]


def compare(records: Sequence[RunRecord], metrics: Sequence[str] = ()) -> Comparison:
    """Figures of each run's best finalist on selection data, and every key of the definitions that is not the same.

    metrics: by default the objectives of all of them. Raises DefinitionError for a metric that none of them has measured.
    """
    known = dict.fromkeys(name for record in records for name in record.dense["selection"])
    for name in metrics:
        one_of(name, known, "secateur runs compare", "metric")
    rows: dict[str, tuple[Any, ...]] = {
        "best finalist": tuple(record.knee for record in records),
        "finalists that passed": tuple(f"{len(r.registered)} of {len(r.finalists)}" for r in records),
    }
    for name in metrics or dict.fromkeys(name for record in records for name in record.objectives):
        rows[f"{name}, dense"] = tuple(_value(record.dense["selection"].get(name)) for record in records)
        rows[name] = tuple(_value(_best(record).get(name)) for record in records)
        rows[f"{name}, 95 %"] = tuple(_interval(_best(record).get(name)) for record in records)
    rows["trials"] = tuple(sum(t.same_as is None for t in record.trials) for record in records)
    rows["hypervolume of the search"] = tuple(
        next((arm.hypervolume for arm in record.arms if arm.arm == SEARCH), None) for record in records
    )
    # Parts of a stage (`recover.training`) lie inside it.
    rows["seconds"] = tuple(sum(s for key, s in r.seconds.items() if "." not in key) for r in records)
    definitions = [dict(_flat(record.definition)) for record in records]
    for key in dict.fromkeys(key for definition in definitions for key in definition):
        values = tuple(definition.get(key) for definition in definitions)
        if any(value != values[0] for value in values):
            rows[f"definition: {key}"] = values
    return Comparison(tuple(record.run_id for record in records), rows, tuple(_warnings(records)))


def _warnings(records: Sequence[RunRecord]) -> Iterator[str]:
    for what, values in (
        ("measured on different devices: their latencies do not compare", {r.device for r in records}),
        ("of different workloads: their scores do not compare", {(r.workload, r.score_name) for r in records}),
        ("with data roles of different sizes", {tuple(r.samples.items()) for r in records}),
    ):
        if len(values) > 1:
            yield f"These runs are {what}."


def _best(record: RunRecord) -> Mapping[str, Measurement]:
    return next((f.measurements for f in record.finalists if f.name == record.knee), {})


def _value(measurement: Measurement | None) -> float | None:
    return None if measurement is None else measurement.value


def _interval(measurement: Measurement | None) -> tuple[float, float] | None:
    return None if measurement is None else measurement.interval


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; lists are values."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
