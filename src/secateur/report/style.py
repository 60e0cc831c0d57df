"""The look that all figures share. Colours are readable on white and on dark paper; the page's style sheet sets the text's."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from secateur.records import Measurement

INK, MUTED, GRID = "#5b6777", "#8a94a3", "rgba(138, 148, 163, 0.25)"
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


def empty() -> go.Figure:
    """A figure without plotly's template, which would be four fifths of its JSON."""
    return go.Figure(layout={"template": None})


def layout(figure: go.Figure, height: int) -> go.Figure:
    """The shared look. The legend stands at the lower edge of the figure, where it pushes the axes up and never covers them."""
    figure.update_layout(
        height=height,
        margin={"l": 52, "r": 10, "t": 32, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": INK},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        hoverlabel={"bgcolor": "white", "bordercolor": MUTED, "font": {"size": 12, "color": "#1f2a37"}},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True}
    figure.update_xaxes(title_standoff=8, **axis)
    figure.update_yaxes(title_standoff=6, **axis)
    return figure


def error_bars(values: list[float], intervals: list[tuple[float, float]]) -> dict[str, Any]:
    """Asymmetric 95 % intervals around values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, intervals, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        "thickness": 1,
        "width": 3,
    }


def scaled(measurement: Measurement, factor: float) -> tuple[float, float]:
    """A measurement's interval times a factor."""
    low, high = measurement.bounds
    return low * factor, high * factor
