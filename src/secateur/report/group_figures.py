"""Figures of the groups: what was cut in each finalist, and how sensitive each group is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from secateur.records import Candidate, RunRecord
from secateur.report.style import METHOD_COLOURS, MUTED, empty, layout


def cuts_figure(record: RunRecord) -> go.Figure:
    """What was cut: a strip per finalist, a bar per group (the removed share of its channels), coloured by method."""
    names = [g.name for g in record.groups]
    widths = {g.name: g.width for g in record.groups}
    methods = sorted({cut.method for f in record.finalists for cut in f.candidate.cuts.values() if cut.method})
    finalists = sorted(record.finalists, key=lambda f: -_kept_share(f.candidate, widths))
    figure = make_subplots(
        rows=len(finalists), cols=1, shared_xaxes=True, vertical_spacing=0.18 / len(finalists),
        figure=empty(),
    )  # fmt: skip
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
                    y=[round(1 - cut.kept / widths[name], 4) for name, cut in cuts.items()],
                    name=method,
                    legendgroup=method,
                    showlegend=method not in shown,
                    marker={"color": METHOD_COLOURS[i % len(METHOD_COLOURS)]},
                    text=[f"{cut.kept}/{widths[name]}" for name, cut in cuts.items()],
                    textposition="auto",
                    insidetextfont={"color": "white"},
                    outsidetextfont={"color": MUTED},
                    hovertemplate=f"<b>{finalist.name}</b>, %{{x}}<br>%{{text}} channels stay<br>chosen by {method}<extra></extra>",
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
    return sum(cut.kept / widths[name] for name, cut in candidate.cuts.items())


def sensitivity_figure(record: RunRecord) -> go.Figure:
    """Damage of each group cut alone, against its removed share, by the criterion that was probed at most widths."""
    figure = empty()
    palette = METHOD_COLOURS
    for i, group in enumerate(record.groups):
        probes = [s for s in record.sensitivities if s.group == group.name]
        if not probes:
            continue
        swept = Counter(s.method for s in probes).most_common(1)[0][0]
        points = sorted((s for s in probes if s.method == swept), key=lambda s: -s.kept)
        figure.add_trace(
            go.Scatter(
                x=[0.0, *(round(1 - s.kept / s.width, 4) for s in points)],
                y=[0.0, *(float(f"{s.damage:.5g}") for s in points)],
                mode="lines+markers",
                name=group.name,
                line={"color": palette[i % len(palette)], "dash": ("solid", "dash", "dot")[i // len(palette) % 3]},
                text=["dense", *(f"{s.kept} of {s.width} stay, by {s.method}" for s in points)],
                hovertemplate=f"<b>{group.name}</b><br>%{{text}}<br>damage %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="channels removed from this group alone", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="damage (relative squared error)", rangemode="tozero")
    return layout(figure, 460)
