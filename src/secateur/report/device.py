"""What the device says of each model, and whether it could be relied on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from secateur.records import Measurement, RunRecord
from secateur.report.units import UNKNOWN, kilobytes, score_with_interval

HEADINGS = (
    *("model", "provenance", "min ms", "p50 ms", "p90 ms", "samples/s", "memory", "energy"),
    *("own score", "°C", "MHz", "drift", "throttled"),
)


def _cells(figures: Mapping[str, Measurement], score_unit: str) -> tuple[str, ...]:
    """What a device says of one model, for the columns behind its name."""
    latency = figures.get("latency")
    details = latency.details if latency else {}

    def shown(name: str, form: str) -> str:
        return format(details[name], form) if name in details else UNKNOWN

    def other(name: str, text: Callable[[float], str]) -> str:
        return text(figures[name].value) if name in figures else UNKNOWN

    return (
        latency.provenance if latency else UNKNOWN,
        *(shown(name, ".3f") for name in ("min_ms", "p50_ms", "p90_ms")),
        other("throughput", lambda value: f"{value:,.0f}"),
        other("memory", kilobytes),
        other("energy", lambda value: f"{value:.2f} mJ"),
        score_with_interval(figures.get("device_accuracy"), score_unit),
        shown("temperature_c", ".0f"),
        shown("frequency_mhz", ",.0f"),
        shown("drift", "+.1%"),
        ("yes" if details["throttled"] else "no") if "throttled" in details else UNKNOWN,
    )


def device_section(record: RunRecord) -> str:
    """What the device says of each model beside its latency ratio."""
    models = [
        ("dense", record.dense["selection"]),
        *((f.name, f.measurements) for f in record.finalists if not f.failure),
    ]
    if not any("latency" in figures for _, figures in models):
        return ""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (name, *_cells(figures, record.score_unit))) + "</tr>"
        for name, figures in models
    )
    return (
        f'<section><h2>On the device</h2><p class="note">{escape(record.device)}. Memory: what opening and running the model '
        "takes, at the peak. Drift: how much slower the dense model, measured alternately, ended than it began.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def noise_floor(record: RunRecord) -> str:
    """The dense model against itself."""
    latency = record.dense["selection"].get("latency")
    if latency is None:
        return "latency was not measured"
    low, high = latency.bounds
    return f"dense model against itself: {latency.value:.4f}, interval {low:.4f} to {high:.4f}"


def steadiness(record: RunRecord) -> str:
    """Whether it kept its pace, over everything that was measured on it."""
    searched = [t.evaluation.measurements for t in record.trials if t.same_as is None]
    found = [m["latency"] for m in (*searched, *(f.measurements for f in record.finalists)) if "latency" in m]
    measured = [m for m in found if m.provenance == "measured"]
    if not measured:
        return "nothing was timed"
    throttled = sum(bool(m.details.get("throttled")) for m in measured)
    disturbed = sum(bool(m.details.get("disturbed")) for m in measured)
    drifts = sorted(abs(m.details.get("drift", 0.0)) for m in measured)
    return (
        f"{len(measured)} measurements; it throttled in {throttled}, and did not become quiet in {disturbed}; the reference "
        f"drifted by {drifts[len(drifts) // 2]:.1%} (median) to {drifts[-1]:.1%} (worst) within one"
    )
