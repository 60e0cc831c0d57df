"""The figure of the trainings: loss and score of each finalist, step by step."""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from secateur.formatting import score_ticks
from secateur.records import Recovered, RunRecord
from secateur.report.style import METHOD_COLOURS, empty, layout


def trained(record: RunRecord) -> list[Recovered]:
    """The finalists whose losses are known."""
    return [finalist for finalist in record.finalists if finalist.curve or finalist.losses]


def training_figure(record: RunRecord) -> go.Figure:
    """Loss over the steps of the optimizer, above the score after each epoch where there is one.

    Trainers of the user's own and records of earlier versions know one loss an epoch, and no steps.
    """
    finalists = trained(record)
    by_step, scored = any(f.curve for f in finalists), any(f.scores for f in finalists)
    figure = make_subplots(rows=1 + scored, cols=1, shared_xaxes=True, vertical_spacing=0.06, figure=empty())
    for place, finalist in enumerate(finalists):
        colour = METHOD_COLOURS[place % len(METHOD_COLOURS)]
        losses = finalist.curve or enumerate(finalist.losses, start=1)
        figure.add_trace(_line(finalist, losses, colour, "loss %{y:.4g}"), row=1, col=1)
        if finalist.scores:
            line = _line(finalist, finalist.scores, colour, f"score %{{y:{score_ticks(record.score_unit)}}}")
            line.update(showlegend=False, mode="lines+markers")
            figure.add_trace(line, row=2, col=1)
    figure.update_yaxes(title="loss", row=1, col=1)
    if scored:
        figure.update_yaxes(title="score", tickformat=score_ticks(record.score_unit), row=2, col=1)
    figure.update_xaxes(title="step" if by_step else "epoch", rangemode="tozero", row=1 + scored, col=1)
    return layout(figure, 480 if scored else 320)


def _line(finalist: Recovered, points: Iterable[tuple[int, float]], colour: str, value: str) -> go.Scatter:
    steps, values = zip(*points, strict=True)
    name = finalist.name.split("-")[0]
    return go.Scatter(
        x=steps,
        y=[float(f"{v:.5g}") for v in values],
        mode="lines",
        name=name,
        legendgroup=name,
        line={"color": colour, "width": 1.5},
        hovertemplate=f"<b>{finalist.name}</b>, %{{x}}<br>{value}<extra></extra>",
    )
