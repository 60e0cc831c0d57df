"""What the device says of each model, and whether it could be relied on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secateur.formatting import UNKNOWN, duration, kilobytes, ratio, score_with_interval
from secateur.records import Measurement, RunRecord
from secateur.report.grid import Column, Row, Table

HEADINGS = (
    *(
        "model",
        "provenance",
        "latency ratio",
        "min ms",
        "dense min ms",
        "p50 ms",
        "dense p50 ms",
        "p90 ms",
        "samples/s",
        "memory",
    ),
    *("energy", "own score", "°C", "MHz", "drift", "quiet", "throttled"),
)


def _cells(figures: Mapping[str, Measurement], score_unit: str) -> tuple[str, ...]:
    """What a device says of one model, for the columns behind its name."""
    latency = figures.get("latency")
    details = latency.details if latency else {}

    def shown(name: str, form: str) -> str:
        return format(details[name], form) if name in details else UNKNOWN

    def other(name: str, text: Callable[[float], str]) -> str:
        return text(figures[name].value) if name in figures else UNKNOWN

    def answer(name: str, true: str, false: str) -> str:
        return (true if details[name] else false) if name in details else UNKNOWN

    return (
        latency.provenance if latency else UNKNOWN,
        ratio(latency),
        *(shown(name, ".3f") for name in ("min_ms", "dense_min_ms", "p50_ms", "dense_p50_ms", "p90_ms")),
        other("throughput", lambda value: f"{value:,.0f}"),
        other("memory", kilobytes),
        other("energy", lambda value: f"{value:.2f} mJ"),
        score_with_interval(figures.get("device_accuracy"), score_unit),
        shown("temperature_c", ".0f"),
        shown("frequency_mhz", ",.0f"),
        shown("drift", "+.1%"),
        answer("disturbed", "no", "yes"),
        answer("throttled", "yes", "no"),
    )


def device_table(record: RunRecord) -> Table | None:
    """What the device says of each model beside its latency ratio; None where latency was not measured."""
    models = [
        ("dense", record.dense["selection"]),
        *((f.name, f.measurements) for f in record.finalists if not f.failure),
    ]
    if not any("latency" in figures for _, figures in models):
        return None
    columns = tuple(Column(heading, text=i < 2) for i, heading in enumerate(HEADINGS))
    rows = tuple(Row((name, *_cells(figures, record.score_unit)), best=name == record.knee) for name, figures in models)
    return Table(columns, rows).filled()


def noise_floor(record: RunRecord) -> str:
    """The dense model against itself."""
    latency = record.self_comparison or record.dense["selection"].get("latency")
    if latency is None:
        return "latency was not measured"
    low, high = latency.bounds
    return f"dense model against itself: {latency.value:.4f}, 95 % interval {low:.4f} to {high:.4f}"


def measured_latencies(record: RunRecord) -> list[Measurement]:
    """Every latency that was measured in the run, in the search and after it."""
    searched = [t.evaluation.measurements for t in record.trials if t.same_as is None]
    latencies = [m["latency"] for m in (*searched, *(f.measurements for f in record.finalists)) if "latency" in m]
    return [m for m in latencies if m.provenance == "measured"]


def steadiness(record: RunRecord) -> str:
    """Whether the device kept its pace, over everything that was measured on it."""
    measured = measured_latencies(record)
    if not measured:
        return "nothing was timed"
    throttled = sum(bool(m.details.get("throttled")) for m in measured)
    disturbed = sum(bool(m.details.get("disturbed")) for m in measured)
    drifts = sorted(abs(m.details.get("drift", 0.0)) for m in measured)
    waited = f"; waited {duration(record.waited)} for it to become quiet" if record.waited else ""
    return (
        f"{len(measured)} measurements: throttled in {throttled}, not quiet in {disturbed}; the dense model drifted by "
        f"{drifts[len(drifts) // 2]:.1%} (median) to {drifts[-1]:.1%} (worst) within one measurement{waited}"
    )
