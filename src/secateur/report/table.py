"""The before-and-after table, as text: the same for the report and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.records import SEARCH, Measurement, PredictionAudit, Recovered, RunRecord
from secateur.report.units import UNKNOWN, amount, difference, kilobytes, of_dense, ratio, score_with_interval, short

HEADINGS = (
    "model",
    "status",
    "score before recovery",
    "score after",
    "test score",
    "latency (speed-up)",
    "ms (p50)",
    "size",
    "parameters",
    "MACs",
)


@dataclass(frozen=True)
class Row:
    """One line of the table. best: the model that gets the alias; passed: it is registered, or is the dense model."""

    cells: tuple[str, ...]
    best: bool
    passed: bool


def rows(record: RunRecord) -> list[Row]:
    """The dense model, then the finalists in order of falling latency ratio (or size)."""
    dense = record.dense["selection"]
    scores = [record.dense["search"].get("accuracy"), dense.get("accuracy"), record.dense["test"].get("accuracy")]
    shown = (score_with_interval(s, record.score_unit) for s in scores)
    original = ("dense", "original", *shown, *_costs(dense, dense, reference=True))
    finalists = sorted(record.finalists, key=_weight, reverse=True)
    scratch = [record.small_dense] if record.small_dense is not None else []
    return [Row(original, best=False, passed=True), *(_row(record, f) for f in (*finalists, *scratch))]


def _row(record: RunRecord, finalist: Recovered) -> Row:
    scores = [finalist.searched.get("accuracy"), finalist.measurements.get("accuracy"), finalist.test]
    costs = _costs(finalist.measurements, record.dense["selection"])
    shown = (score_with_interval(s, record.score_unit) for s in scores)
    return Row(
        (finalist.name, status(record, finalist), *shown, *costs),
        best=finalist.name == record.knee,
        passed=finalist.feasible and finalist.on_front,
    )


def _weight(finalist: Recovered) -> float:
    for name in ("latency", "size"):
        if name in finalist.measurements:
            return finalist.measurements[name].value
    return 0.0


def status(record: RunRecord, finalist: Recovered) -> str:
    """What became of a finalist, in a few words."""
    if finalist.failure is not None:
        return f"failed: {finalist.failure}"
    notes = []
    if record.small_dense is not None and finalist.name == record.small_dense.name:
        notes.append("baseline: trained anew")
    elif finalist.name == record.knee:
        notes.append("knee of the front")
    elif finalist.feasible and finalist.on_front:
        notes.append("on the front")
    elif not finalist.feasible:
        notes.append("loses too much")
    else:
        notes.append("dominated")
    if finalist.stopped is not None:
        notes.append(f"stopped early: {finalist.stopped}")
    return "; ".join(notes)


def _costs(
    measured: Mapping[str, Measurement], dense: Mapping[str, Measurement], *, reference: bool = False
) -> tuple[str, ...]:
    latency = measured.get("latency")
    milliseconds = latency.details.get("p50_ms") if latency else None
    compared = "1 (reference)" if reference else f"{ratio(latency)} ({1 / latency.value:.2f}×)" if latency else UNKNOWN
    return (
        compared,
        f"{milliseconds:.3f}" if milliseconds is not None else UNKNOWN,
        of_dense(measured.get("size"), dense.get("size"), kilobytes),
        of_dense(measured.get("parameters"), dense.get("parameters"), short),
        of_dense(measured.get("macs"), dense.get("macs"), short),
    )


def headline(record: RunRecord) -> str:
    """What came of it, and before anything else where the search was not worth its while."""
    return " ".join((*_warnings(record), _result(record)))


def _warnings(record: RunRecord) -> list[str]:
    said = []
    if record.unbeaten:
        search = next(a for a in record.arms if a.arm == SEARCH)
        beaten_by = ", ".join(f"{a.arm} ({a.hypervolume:.4f} with {a.networks} networks)" for a in record.unbeaten)
        said.append(f"The search (hypervolume {search.hypervolume:.4f}) did not beat the baseline: {beaten_by}.")
    small, best = record.small_dense, next((f for f in record.finalists if f.name == record.knee), None)
    if small is not None and best is not None and "accuracy" in small.measurements:
        gap = best.measurements["accuracy"].value - small.measurements["accuracy"].value
        if gap <= 0:
            said.append(
                f"Trained from scratch, the widths of {best.name} do as well as pruned: cutting brought nothing."
            )
    return said


def _result(record: RunRecord) -> str:
    passed = record.registered
    if not passed:
        return f"None of the {len(record.finalists)} finalists passed the gate."
    count = f"{len(passed)} of {len(record.finalists)} finalists passed the gate."
    best = next(f for f in passed if f.name == record.knee)
    parts = []
    if "latency" in best.measurements:
        parts.append(f"{1 / best.measurements['latency'].value:.2f}× faster")
    dense = record.dense["selection"]
    if "size" in best.measurements:
        parts.append(f"{dense['size'].value / best.measurements['size'].value:.2f}× smaller")
    lost = difference(best.measurements["accuracy"].value - dense["accuracy"].value, record.score_unit)
    parts.append(f"{lost} of {record.score_name} on selection data")
    return f"{count} {best.name}, the knee of the front: {', '.join(parts)}."


def audit_facts(record: RunRecord) -> dict[str, str]:
    """Whether the search's score said what fine-tuning would give, and what the choosing has flattered."""
    audit = record.audit
    facts = {
        "rank correlation of search score and tuned score": f"Kendall {audit.kendall:.2f} over {audit.pairs} finalists"
        if audit.kendall is not None
        else f"not known: {audit.pairs} finalists",
    }
    if audit.regret is not None:
        facts["regret"] = (
            f"{amount(audit.regret, record.score_unit)}: the finalist that the search scored best, against the best one"
        )
    for name, shrinkage in (
        ("search to selection data", audit.search_to_selection),
        ("selection to test data", audit.selection_to_test),
    ):
        if shrinkage is not None:
            facts[f"tuned finalists from {name}"] = f"{difference(shrinkage, record.score_unit)} on average"
    if record.prediction is not None:
        facts["latency predictor"] = _prediction(record.prediction)
    for rung in record.rungs:
        facts[f"rung: {rung.name}"] = f"{len(rung.passed)} of {len(rung.scores)} went on"
    return facts


def _prediction(found: PredictionAudit) -> str:
    screened = f"{found.screened} networks were given up on its word and not measured"
    if found.mean_error is None or found.within_tenth is None or found.covered is None:
        return f"{screened}; none was both predicted and measured"
    order = "not known" if found.kendall is None else f"{found.kendall:.2f}"
    return (
        f"over {found.pairs} networks that it foresaw and the device then measured: mean error {found.mean_error:.1%}, "
        f"{found.within_tenth:.0%} within 10 %, Kendall {order}, {found.covered:.0%} inside its interval; {screened}"
    )
