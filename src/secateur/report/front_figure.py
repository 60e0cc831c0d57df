"""The figure of the front: score against one cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from secateur.formatting import kilobytes, ratio, score_ticks, score_with_interval, short
from secateur.records import SCORE, SHARE, Measurement, Recovered, RunRecord, Trial
from secateur.report.style import COLOURS, MUTED, empty, error_bars, layout, scaled

AXES = {
    "latency": "latency (dense model: 100%)",
    "size": "file size (dense model: 100%)",
    "macs": "MACs (dense model: 100%)",
    "parameters": "parameters (dense model: 100%)",
    "download": "download (dense model: 100%)",
    "nonzero": "non-zeros (dense model: 100%)",
}
"""Short enough for a figure on a phone."""
ARM_NAMES = {
    "uniform": "uniform family",
    "global": "one threshold for all groups",
    "random": "random draws",
    "prior": "front of an earlier run",
    "knapsack": "knapsack points",
    "sampler": "sampler",
}
"""In the order in which they are drawn: what the search has found lies on top of what it is compared with."""
SYMBOLS = {
    "uniform": "square-open",
    "global": "diamond-open",
    "random": "triangle-up-open",
    "prior": "triangle-down",
    "knapsack": "diamond",
    "sampler": "circle",
}
"""Open for what does not search."""


FINALISTS = {"finalist, not passed": False, "finalist, passed the gate": True}
"""Entries of the legend, and whether their members passed."""


def front_figure(record: RunRecord, axis: str) -> go.Figure:
    """Score against one cost: every trial by arm, the dense model, and the finalists before and after recovery.

    Trials that break a goal are crossed out in grey. What was stopped early or rejected unseen has no score on all of the data
    and is not shown.
    """
    figure = empty()
    own = [t for t in record.trials if t.same_as is None and t.evaluation.complete]
    own = [t for t in own if {axis, "accuracy"} <= t.evaluation.measurements.keys()]
    feasible = [t for t in own if t.number not in record.infeasible]
    for arm in ARM_NAMES:
        if trials := [t for t in feasible if t.arm == arm]:
            marker = {"size": 8, "color": COLOURS[arm], "opacity": 0.75, "symbol": SYMBOLS[arm]}
            figure.add_trace(_trials(trials, record, axis, name=ARM_NAMES[arm], marker=marker))
    if broken := [t for t in own if t.number in record.infeasible and t.arm != "dense"]:
        marker = {"size": 8, "color": MUTED, "symbol": "x-thin-open"}
        figure.add_trace(_trials(broken, record, axis, name="infeasible", marker=marker))
    finalists = [f for f in record.finalists if {axis, "accuracy"} <= f.measurements.keys()]
    for finalist in finalists:
        if (begin := _before(finalist, record, axis)) is not None:
            figure.add_trace(_path(begin, _place(finalist.measurements, record.dense["selection"], axis)))
    for name, passed in FINALISTS.items():
        if members := [f for f in finalists if (f in record.registered) == passed]:
            figure.add_trace(_recovered(members, record, axis, name=name, symbol="circle" if passed else "circle-open"))
    figure.add_trace(_dense(record))
    for limit in (g.limit for g in record.goals if g.metric == SCORE):
        figure.add_hline(y=limit, line={"color": COLOURS["recovered"], "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=0.995, xref="paper", xanchor="right", y=limit, yanchor="top", showarrow=False,
            text="limit", font={"size": 11, "color": COLOURS["recovered"]},
        )  # fmt: skip
    figure.update_xaxes(title=AXES[axis], tickformat=".0%")
    lower = record.score_direction == "minimize"
    title, turned = f"{record.score_name}{', lower is better' * lower}", "reversed" if lower else None
    figure.update_yaxes(title=title, tickformat=score_ticks(record.score_unit), autorange=turned)
    return layout(figure, 520)


def _share(measurement: Measurement, dense: Measurement, axis: str) -> tuple[float, float]:
    """A cost as a share of the dense model's, and the factor that leads there. Latencies are ratios already."""
    factor = 1.0 if axis == "latency" else 1.0 / dense.value
    return measurement.value * factor, factor


def _trials(
    trials: Sequence[Trial], record: RunRecord, axis: str, *, name: str, marker: Mapping[str, object]
) -> go.Scatter:
    dense, form = record.dense["search"][axis], ".1%" if record.score_unit == SHARE else ".4g"
    return go.Scatter(
        x=[_short(_share(t.evaluation.measurements[axis], dense, axis)[0]) for t in trials],
        y=[_short(t.evaluation.measurements["accuracy"].value) for t in trials],
        mode="markers",
        name=name,
        marker=marker,
        text=[f"trial {t.number}{f', {t.label}' if t.label else ''}" for t in trials],
        hovertemplate=f"<b>%{{text}}</b><br>%{{y:{form}}} at %{{x:.1%}}<extra>search data, before recovery</extra>",
    )


def _short(value: float) -> float:
    """Five digits: what a pixel shows, in a third of the bytes."""
    return float(f"{value:.5g}")


def _before(finalist: Recovered, record: RunRecord, axis: str) -> tuple[float, float] | None:
    """Where a finalist was in the search; of one in int8, where its float32 twin is."""
    if finalist.quantized is not None:
        measured = {f.name: f.measurements for f in record.finalists}
        dense = record.dense["selection"]
        return _place(measured.get(finalist.quantized.of, dense), dense, axis)
    return _place(finalist.searched, record.dense["search"], axis) if axis in finalist.searched else None


def _place(measurements: Mapping[str, Measurement], dense: Mapping[str, Measurement], axis: str) -> tuple[float, float]:
    """Cost, as a share of the dense model's, and score."""
    return _share(measurements[axis], dense[axis], axis)[0], measurements["accuracy"].value


def _path(begin: tuple[float, float], end: tuple[float, float]) -> go.Scatter:
    """A line from one place to another."""
    return go.Scatter(
        x=[begin[0], end[0]],
        y=[begin[1], end[1]],
        mode="lines",
        line={"color": COLOURS["before"], "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def _recovered(finalists: Sequence[Recovered], record: RunRecord, axis: str, *, name: str, symbol: str) -> go.Scatter:
    dense = record.dense["selection"]
    scores = [f.measurements["accuracy"] for f in finalists]
    costs = [_share(f.measurements[axis], dense[axis], axis) for f in finalists]
    intervals = [scaled(f.measurements[axis], factor) for f, (_, factor) in zip(finalists, costs, strict=True)]
    return go.Scatter(
        x=[value for value, _ in costs],
        y=[s.value for s in scores],
        error_x=error_bars([value for value, _ in costs], intervals),
        error_y=error_bars([s.value for s in scores], [s.bounds for s in scores]),
        mode="markers+text",
        name=name,
        marker={
            "size": [16 if f.name == record.knee else 12 for f in finalists],
            "color": COLOURS["recovered"],
            "symbol": symbol,
            "line": {"width": 2, "color": COLOURS["recovered"]},
        },
        text=[_named(f) for f in finalists],
        textposition="top left",
        textfont={"size": 11, "color": COLOURS["recovered"]},
        customdata=[_hover(f.name, f.measurements, record.score_unit) for f in finalists],
        hovertemplate="%{customdata}<extra>selection data, after recovery</extra>",
    )


def _named(finalist: Recovered) -> str:
    """A name as there is room for."""
    return finalist.name.split("-")[0] + (" int8" if finalist.quantized is not None else "")


def _dense(record: RunRecord) -> go.Scatter:
    score = record.dense["selection"]["accuracy"]
    return go.Scatter(
        x=[1.0],
        y=[score.value],
        error_y=error_bars([score.value], [score.bounds]),
        mode="markers",
        name="dense model",
        marker={"symbol": "star", "size": 15, "color": COLOURS["dense"]},
        hovertemplate=f"<b>dense model</b><br>{record.score_name}: {score_with_interval(score, record.score_unit)}<extra></extra>",
    )


def _hover(title: str, measurements: Mapping[str, Measurement], unit: str) -> str:
    lines = [f"<b>{title}</b>"]
    if "accuracy" in measurements:
        lines.append(f"score: {score_with_interval(measurements['accuracy'], unit)}")
    if "latency" in measurements:
        lines.append(f"latency: {ratio(measurements['latency'])} of dense")
    for name, text in (("size", kilobytes), ("download", kilobytes), ("parameters", short), ("macs", short)):
        if name in measurements:
            lines.append(f"{name}: {text(measurements[name].value)}")
    return "<br>".join(lines)
