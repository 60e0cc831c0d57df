"""The before-and-after table, as text: the same for the report and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.formatting import (
    UNKNOWN,
    compared,
    difference,
    difference_with_interval,
    gated_costs,
    kilobytes,
    of_dense,
    score_with_interval,
    short,
    times,
)
from secateur.records import Measurement, Recovered, RunRecord
from secateur.report.grid import Column, Row, Table
from secateur.report.int8 import against_twin

COLUMNS = (
    Column("model", 0, text=True),
    Column("constraints", 3, text=True),
    Column("front", 2, text=True),
    Column("score before recovery", 9),
    Column("score after", 4),
    Column("change", 1),
    Column("test score", 8),
    Column("test change", 10),
    Column("speed-up", 1),
    Column("ms (dense model)", 5),
    Column("size", 2),
    Column("download", 6),
    Column("parameters", 12),
    Column("MACs", 7),
)


GATE = (
    Column("check", 0, text=True),
    Column("beside the version that serves", 0),
    Column("demand", 2, text=True, prose=True),
    Column("verdict", 1, text=True),
)


def gate_table(record: RunRecord) -> Table | None:
    """The knee beside the version that serves; None where they have not been compared."""
    if record.comparison is None or not record.comparison.checks:
        return None
    rows = (
        Row(
            (
                check.name,
                compared(check.figure, record.score_unit),
                check.demand,
                "passed" if check.passed else "failed",
            ),
            passed=check.passed,
        )
        for check in record.comparison.checks
    )
    return Table(GATE, tuple(rows))


def before_and_after(record: RunRecord) -> Table:
    """The dense model, then the finalists in order of falling latency ratio (or size). Empty columns are left out."""
    finalists = sorted(record.finalists, key=_weight, reverse=True)
    scratch = [record.small_dense] if record.small_dense is not None else []
    rows = (_dense_row(record), *(_row(record, f) for f in (*finalists, *scratch)))
    return Table(COLUMNS, rows).filled()


def _dense_row(record: RunRecord) -> Row:
    dense = record.dense
    before, after, test = (dense.get(role, {}).get("accuracy") for role in ("search", "selection", "test"))
    latency = dense["selection"].get("latency")
    costs = _costs(dense["selection"], dense["selection"])
    speed = ("1 (reference)", milliseconds(latency, "")) if latency else (UNKNOWN, UNKNOWN)
    scores = [score_with_interval(s, record.score_unit) for s in (before, after, test)]
    cells = ("dense", UNKNOWN, UNKNOWN, *scores[:2], UNKNOWN, scores[2], UNKNOWN, *speed, *costs)
    return Row(cells)


def _row(record: RunRecord, finalist: Recovered) -> Row:
    latency, unit = finalist.measurements.get("latency"), record.score_unit
    verdict = record.verdicts.get(finalist.name)
    cells = (
        finalist.name,
        constraints(record, finalist),
        place(record, finalist),
        score_with_interval(finalist.searched.get("accuracy"), unit),
        score_with_interval(finalist.measurements.get("accuracy"), unit),
        change(record, finalist, "selection"),
        score_with_interval(verdict.test if verdict else None, unit),
        change(record, finalist, "test"),
        speedup(latency),
        with_dense(latency),
        *_costs(finalist.measurements, record.dense["selection"]),
    )
    return Row(
        cells,
        best=finalist.name == record.knee,
        passed=verdict is not None and verdict.passed,
        notes=tuple(notes(record, finalist)),
    )


def _weight(finalist: Recovered) -> float:
    for name in ("latency", "size"):
        if name in finalist.measurements:
            return finalist.measurements[name].value
    return 0.0


def constraints(record: RunRecord, finalist: Recovered) -> str:
    """Whether a finalist meets the constraints on selection data."""
    if finalist.failure is not None:
        return "failed"
    verdict = record.verdicts.get(finalist.name)
    if verdict is None:  # a baseline
        return UNKNOWN
    return "met" if verdict.feasible else "not met"


def place(record: RunRecord, finalist: Recovered) -> str:
    """Whether a finalist lies on the recovered front, which has nothing to do with the constraints."""
    if finalist.failure is not None:
        return UNKNOWN
    verdict = record.verdicts.get(finalist.name)
    if verdict is None:
        return "baseline"
    if finalist.name == record.knee:
        return "knee"
    return "yes" if verdict.on_front else "no"


def notes(record: RunRecord, finalist: Recovered) -> list[str]:
    """What else is to be said of a finalist."""
    remarks = [f"failed: {finalist.failure}"] if finalist.failure is not None else []
    if verdict := record.verdicts.get(finalist.name):
        remarks += [f"not shown: {check.goal}: {check.missed}" for check in verdict.checks if check.missed is not None]
        if verdict.veto is not None:
            remarks.append(f"no alias: {verdict.veto}")
    if finalist.stopped is not None:
        remarks.append(f"fine-tuning stopped early: {finalist.stopped}")
    if (compared := against_twin(record, finalist)) is not None:
        remarks.append(compared)
    return [*remarks, *filter(None, [gated_costs(finalist.paths)])]


def status(record: RunRecord, finalist: Recovered) -> str:
    """What became of a finalist, in one phrase."""
    if finalist.failure is not None:
        return f"failed: {finalist.failure}"
    if finalist.name not in record.verdicts:
        first = "baseline: trained from scratch"
    else:
        on_front = {"knee": "knee of the front", "yes": "on the front"}.get(place(record, finalist), "dominated")
        first = f"constraints {constraints(record, finalist)}, {on_front}"
    return "; ".join((first, *notes(record, finalist)))


def change(record: RunRecord, finalist: Recovered, role: str) -> str:
    """The change of the score against the dense model's on a data role, with its interval where it was taken sample by sample."""
    verdict = record.verdicts.get(finalist.name)
    paired = (verdict.test_change if role == "test" else verdict.change) if verdict else None
    if paired is not None:
        return difference_with_interval(paired, record.score_unit)
    tested = verdict.test if verdict else None
    after = tested if role == "test" else finalist.measurements.get("accuracy")
    before = record.dense.get(role, {}).get("accuracy")
    return UNKNOWN if after is None or before is None else difference(after.value - before.value, record.score_unit)


def milliseconds(latency: Measurement | None, prefix: str) -> str:
    """The fastest run of a measurement, which is what latency ratios compare. prefix: `dense_` for the dense model's there."""
    fastest = latency.details.get(f"{prefix}min_ms") if latency else None
    return UNKNOWN if fastest is None else f"{fastest:.3f}"


def speedup(latency: Measurement | None) -> str:
    """How many times faster, with its 95 % interval."""
    if latency is None:
        return UNKNOWN
    low, high = latency.bounds
    return f"{times(1 / latency.value)} ({1 / high:.2f}–{1 / low:.2f})"


def with_dense(latency: Measurement | None) -> str:
    """Milliseconds beside the dense model's of the same measurement: only these two can be compared."""
    own, dense = milliseconds(latency, ""), milliseconds(latency, "dense_")
    return own if dense == UNKNOWN else f"{own} ({dense})"


def _costs(measured: Mapping[str, Measurement], dense: Mapping[str, Measurement]) -> tuple[str, ...]:
    return (
        of_dense(measured.get("size"), dense.get("size"), kilobytes),
        of_dense(measured.get("download"), dense.get("download"), kilobytes),
        of_dense(measured.get("parameters"), dense.get("parameters"), short),
        of_dense(measured.get("macs"), dense.get("macs"), short),
    )
