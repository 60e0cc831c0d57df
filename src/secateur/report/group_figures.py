"""Figures of the groups: what was cut in each finalist, and how sensitive each group is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from secateur.records import Candidate, RunRecord, Sensitivity
from secateur.report.style import GRID, METHOD_COLOURS, MUTED, empty, layout

LABELLED = 24
"""Groups up to which a bar has room for a label."""
COLOURED = 16
"""Sensitivity curves with a colour of their own, the steepest; more could not be told apart."""


def cuts_figure(record: RunRecord) -> go.Figure:
    """What was cut: a strip per finalist, a bar per group (the share of it that is gone), coloured by method."""
    names = [g.name for g in record.groups]
    widths = {g.name: g.width for g in record.groups}
    whole = [f for f in record.finalists if f.quantized is None]  # an int8 twin is cut as its float32 one
    methods = sorted({edit.method for f in whole for edits in f.candidate.edits.values() for edit in edits})
    finalists = sorted(whole, key=lambda f: -_kept_share(f.candidate, widths))
    figure = make_subplots(
        rows=len(finalists), cols=1, shared_xaxes=True, vertical_spacing=0.18 / len(finalists),
        figure=empty(),
    )  # fmt: skip
    shown = set()
    for row, finalist in enumerate(finalists, start=1):
        for i, method in enumerate(methods):
            edits = {
                name: edit for name in names for edit in finalist.candidate.edits.get(name, ()) if edit.method == method
            }
            if not edits:
                continue
            figure.add_trace(
                go.Bar(
                    x=list(edits),
                    y=[round(1 - edit.kept(widths[name]), 4) for name, edit in edits.items()],
                    name=method,
                    legendgroup=method,
                    showlegend=method not in shown,
                    marker={"color": METHOD_COLOURS[i % len(METHOD_COLOURS)]},
                    text=[edit.text(widths[name]) for name, edit in edits.items()],
                    textposition="auto" if len(names) <= LABELLED else "none",
                    insidetextfont={"color": "white"},
                    outsidetextfont={"color": MUTED},
                    hovertemplate=f"<b>{finalist.name}</b>, %{{x}}<br>%{{text}} stay<br>chosen by {method}<extra></extra>",
                ),
                row=row,
                col=1,
            )
            shown.add(method)
        figure.update_yaxes(title=finalist.name.split("-")[0], tickformat=".0%", range=[0, 1], nticks=3, row=row, col=1)
    figure.update_xaxes(categoryorder="array", categoryarray=names)
    figure.update_xaxes(tickangle=-45, row=len(finalists), col=1)
    layout(figure, 150 + 90 * len(finalists))
    figure.update_layout(barmode="stack", bargap=0.25)
    return figure


def _kept_share(candidate: Candidate, widths: Mapping[str, int]) -> float:
    return sum(candidate.kept(name, width) for name, width in widths.items())


def sensitivity_figure(record: RunRecord) -> go.Figure:
    """Damage of each group cut alone, against its removed share, by the criterion that was probed at most widths.

    Of many groups the steepest have colours; the others are grey and share an entry of the legend.
    """
    figure = empty()
    widths = {group.name: group.width for group in record.groups}
    curves = [curve for group in record.groups if (curve := _curve(record, group.name))]
    steepest = sorted(curves, key=lambda curve: -max(s.damage / s.removed for s in curve))[:COLOURED]
    named = {curve[0].group: i for i, curve in enumerate(c for c in curves if c in steepest)}
    others = len(curves) - len(named)
    for curve in sorted(curves, key=lambda curve: curve[0].group in named):  # colours lie on top
        group = curve[0].group
        place = named.get(group)
        figure.add_trace(
            go.Scatter(
                x=[0.0, *(round(s.removed, 4) for s in curve)],
                y=[0.0, *(float(f"{s.damage:.5g}") for s in curve)],
                mode="lines" if place is None else "lines+markers",
                name=f"{others} flatter groups" if place is None else group,
                line=_line(place),
                legendgroup="others" if place is None else group,
                legendrank=2000 if place is None else 1000,
                showlegend=place is not None or not any(t.legendgroup == "others" for t in figure.data),
                text=["dense", *(f"{s.edit.text(widths[group])} stay, by {s.edit.method}" for s in curve)],
                hovertemplate=f"<b>{group}</b><br>%{{text}}<br>damage %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="removed from this group alone", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="damage (relative squared error)", rangemode="tozero")
    return layout(figure, 460)


def _curve(record: RunRecord, group: str) -> list[Sensitivity]:
    """A group's probes with one criterion, from the mildest cut on; empty where it was not probed."""
    probes = [s for s in record.sensitivities if s.group == group]
    if not probes:
        return []
    swept = Counter(s.edit.method for s in probes).most_common(1)[0][0]
    return sorted((s for s in probes if s.edit.method == swept), key=lambda s: s.removed)


def _line(place: int | None) -> dict[str, object]:
    """A coloured line by place in the legend; thin and grey without one."""
    if place is None:
        return {"color": GRID, "width": 1}
    palette = METHOD_COLOURS
    return {"color": palette[place % len(palette)], "dash": ("solid", "dash")[place // len(palette) % 2]}
