"""The figures of the report, in plotly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from secateur.records import Candidate, Measurement, Recovered, RunRecord, Trial
from secateur.report.units import kilobytes, ratio, score_ticks, score_with_interval, short

INK, MUTED, GRID = "#1f2a37", "#8a94a3", "#e6e9ee"
COLOURS = {
    "dense": INK,
    "uniform": "#e08a1e",
    "global": "#b0458c",
    "random": "#8a6d3b",
    "prior": "#3f8f9b",
    "knapsack": "#6aa5d8",
    "sampler": "#2f6fb2",
    "recovered": "#1d8a5f",
    "before": "#9ccbb7",
}
METHOD_COLOURS = ("#2f6fb2", "#1d8a5f", "#e08a1e", "#b0458c", "#7a5cc0", "#c44536", "#5a6b7b", "#8a9a2b")
AXES = {
    "latency": "latency, as a share of the dense model's",
    "size": "size, as a share of the dense model's",
    "macs": "multiply-accumulates, as a share of the dense model's",
    "parameters": "parameters, as a share of the dense model's",
}
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


def layout(figure: go.Figure, height: int) -> go.Figure:
    """The look that all figures share."""
    figure.update_layout(
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": INK},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": MUTED},
        hoverlabel={"bgcolor": "white", "font": {"size": 12}},
        legend={"orientation": "h", "y": -0.2, "x": 0, "font": {"size": 12}},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, linecolor=GRID)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, linecolor=GRID)
    return figure


def front_figure(record: RunRecord, axis: str, infeasible: Collection[int] = ()) -> go.Figure:
    """Score against one cost: every trial by arm, the dense model, and the finalists before and after recovery.

    infeasible: numbers of trials that break a goal, which are crossed out in grey. What was given up early or rejected unseen has
    no score on all of the data and is not shown.
    """
    figure = go.Figure()
    own = [t for t in record.trials if t.same_as is None and t.evaluation.complete]
    own = [t for t in own if {axis, "accuracy"} <= t.evaluation.measurements.keys()]
    for arm in ARM_NAMES:
        trials = [t for t in own if t.arm == arm and t.number not in infeasible]
        if trials:
            figure.add_trace(_arm_trace(arm, trials, record, axis))
    broken = [t for t in own if t.number in infeasible]
    if broken:
        crossed = _arm_trace("sampler", broken, record, axis)
        figure.add_trace(crossed.update(name="infeasible", marker={"symbol": "x-thin-open", "color": MUTED, "size": 8}))
    finalists = [f for f in record.finalists if axis in f.measurements and "accuracy" in f.measurements]
    for finalist in finalists:
        if axis in finalist.searched:
            figure.add_trace(_arrow(finalist, record, axis))
    figure.add_trace(_recovered_trace(finalists, record, axis))
    selection = record.dense["selection"]
    figure.add_trace(
        go.Scatter(
            x=[1.0],
            y=[selection["accuracy"].value],
            error_y=_error(selection["accuracy"], 1.0),
            mode="markers",
            name="dense model",
            marker={"symbol": "star", "size": 15, "color": COLOURS["dense"]},
            hovertemplate=f"<b>dense model</b><br>{record.score_name}: "
            f"{score_with_interval(selection['accuracy'], record.score_unit)}<extra></extra>",
        )
    )
    for floor in (g.limit for g in record.goals if g.metric == "accuracy" and g.sense == "at_least"):
        figure.add_hline(y=floor, line={"color": COLOURS["recovered"], "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=0.995, xref="paper", xanchor="right", y=floor, yanchor="top", showarrow=False,
            text="gate", font={"size": 11, "color": COLOURS["recovered"]},
        )  # fmt: skip
    figure.update_xaxes(title=AXES[axis], tickformat=".0%")
    figure.update_yaxes(title=record.score_name, tickformat=score_ticks(record.score_unit))
    return layout(figure, 520)


def _relative(measurement: Measurement, dense: Measurement, axis: str) -> tuple[float, float]:
    """A cost as a share of the dense model's, and the factor that leads there."""
    factor = 1.0 if axis == "latency" else 1.0 / dense.value
    return measurement.value * factor, factor


def _error(measurement: Measurement, factor: float) -> dict[str, Any]:
    low, high = measurement.bounds
    return {
        "type": "data",
        "symmetric": False,
        "array": [(high - measurement.value) * factor],
        "arrayminus": [(measurement.value - low) * factor],
        "thickness": 1,
        "width": 3,
    }


def _arm_trace(arm: str, trials: Sequence[Trial], record: RunRecord, axis: str) -> go.Scatter:
    dense = record.dense["search"]
    return go.Scatter(
        x=[_relative(t.evaluation.measurements[axis], dense[axis], axis)[0] for t in trials],
        y=[t.evaluation.measurements["accuracy"].value for t in trials],
        mode="markers",
        name=ARM_NAMES[arm],
        marker={
            "size": 8,
            "color": COLOURS[arm],
            "opacity": 0.75,
            "symbol": SYMBOLS[arm],
        },
        text=[
            _hover(f"trial {t.number}, {t.label or ARM_NAMES[arm]}", t.evaluation.measurements, record.score_unit)
            for t in trials
        ],
        hovertemplate="%{text}<extra>search data, before recovery</extra>",
    )


def _arrow(finalist: Recovered, record: RunRecord, axis: str) -> go.Scatter:
    """A line from a finalist's place in the search to its place after recovery."""
    before = _relative(finalist.searched[axis], record.dense["search"][axis], axis)[0]
    after = _relative(finalist.measurements[axis], record.dense["selection"][axis], axis)[0]
    return go.Scatter(
        x=[before, after],
        y=[finalist.searched["accuracy"].value, finalist.measurements["accuracy"].value],
        mode="lines",
        line={"color": COLOURS["before"], "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def _recovered_trace(finalists: Sequence[Recovered], record: RunRecord, axis: str) -> go.Scatter:
    dense = record.dense["selection"]
    scores = [f.measurements["accuracy"] for f in finalists]
    costs = [_relative(f.measurements[axis], dense[axis], axis) for f in finalists]
    bounds = [
        (f.measurements[axis].bounds[0] * factor, f.measurements[axis].bounds[1] * factor)
        for f, (_, factor) in zip(finalists, costs, strict=True)
    ]
    return go.Scatter(
        x=[value for value, _ in costs],
        y=[s.value for s in scores],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for (_, high), (value, _) in zip(bounds, costs, strict=True)],
            "arrayminus": [value - low for (low, _), (value, _) in zip(bounds, costs, strict=True)],
            "thickness": 1,
            "width": 3,
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [s.bounds[1] - s.value for s in scores],
            "arrayminus": [s.value - s.bounds[0] for s in scores],
            "thickness": 1,
            "width": 3,
        },
        mode="markers+text",
        name="recovered (selection data)",
        marker={
            "size": [16 if f.name == record.knee else 12 for f in finalists],
            "color": COLOURS["recovered"],
            "symbol": ["circle" if f.feasible and f.on_front else "circle-open" for f in finalists],
            "line": {"width": 2, "color": COLOURS["recovered"]},
        },
        text=[f.name.split("-")[0] for f in finalists],
        textposition="top left",
        textfont={"size": 11, "color": COLOURS["recovered"]},
        customdata=[_hover(f.name, f.measurements, record.score_unit) for f in finalists],
        hovertemplate="%{customdata}<extra>selection data, after recovery</extra>",
    )


def _hover(title: str, measurements: Mapping[str, Measurement], unit: str) -> str:
    lines = [f"<b>{title}</b>"]
    if "accuracy" in measurements:
        lines.append(f"score: {score_with_interval(measurements['accuracy'], unit)}")
    if "latency" in measurements:
        lines.append(f"latency: {ratio(measurements['latency'])} of dense")
        lines.append(f"p50: {measurements['latency'].details['p50_ms']:.3f} ms")
    for name, text in (("size", kilobytes), ("parameters", short), ("macs", short)):
        if name in measurements:
            lines.append(f"{name}: {text(measurements[name].value)}")
    return "<br>".join(lines)


def cuts_figure(record: RunRecord) -> go.Figure:
    """What was cut: a strip per finalist, a bar per group (the removed share of its channels), coloured by method."""
    names = [g.name for g in record.groups]
    widths = {g.name: g.width for g in record.groups}
    methods = sorted({cut.method for f in record.finalists for cut in f.candidate.cuts.values() if cut.method})
    finalists = sorted(record.finalists, key=lambda f: -_kept_share(f.candidate, widths))
    figure = make_subplots(rows=len(finalists), cols=1, shared_xaxes=True, vertical_spacing=0.18 / len(finalists))
    shown = set()
    for row, finalist in enumerate(finalists, start=1):
        for i, method in enumerate(methods):
            cuts = {
                name: finalist.candidate.cuts[name] for name in names if finalist.candidate.cuts[name].method == method
            }
            if not cuts:
                continue
            figure.add_trace(
                go.Bar(
                    x=list(cuts),
                    y=[1 - cut.kept / widths[name] for name, cut in cuts.items()],
                    name=method,
                    legendgroup=method,
                    showlegend=method not in shown,
                    marker={"color": METHOD_COLOURS[i % len(METHOD_COLOURS)]},
                    text=[f"{cut.kept}/{widths[name]}" for name, cut in cuts.items()],
                    textposition="auto",
                    hovertemplate=f"<b>{finalist.name}</b>, %{{x}}<br>%{{text}} channels stay<br>chosen by {method}<extra></extra>",
                ),
                row=row,
                col=1,
            )
            shown.add(method)
        figure.update_yaxes(title=finalist.name.split("-")[0], tickformat=".0%", range=[0, 1], nticks=3, row=row, col=1)
    figure.update_xaxes(categoryorder="array", categoryarray=names)
    figure.update_xaxes(tickangle=-45, row=len(finalists), col=1)
    layout(figure, 110 + 90 * len(finalists))
    figure.update_layout(barmode="stack", bargap=0.25, legend={"y": 1.02, "yanchor": "bottom"})
    return figure


def _kept_share(candidate: Candidate, widths: Mapping[str, int]) -> float:
    return sum(cut.kept / widths[name] for name, cut in candidate.cuts.items())


def sensitivity_figure(record: RunRecord) -> go.Figure:
    """Damage of each group cut alone, against its removed share, by the criterion that was probed at most widths."""
    figure = go.Figure()
    palette = METHOD_COLOURS
    for i, group in enumerate(record.groups):
        probes = [s for s in record.sensitivities if s.group == group.name]
        if not probes:
            continue
        swept = Counter(s.method for s in probes).most_common(1)[0][0]
        points = sorted((s for s in probes if s.method == swept), key=lambda s: -s.kept)
        figure.add_trace(
            go.Scatter(
                x=[0.0, *(1 - s.kept / s.width for s in points)],
                y=[0.0, *(s.damage for s in points)],
                mode="lines+markers",
                name=group.name,
                line={"color": palette[i % len(palette)], "dash": ("solid", "dash", "dot")[i // len(palette) % 3]},
                text=["dense", *(f"{s.kept} of {s.width} stay, by {s.method}" for s in points)],
                hovertemplate=f"<b>{group.name}</b><br>%{{text}}<br>damage %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="removed channels of this group alone", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="damage (relative squared error)", rangemode="tozero")
    return layout(figure, 420)
