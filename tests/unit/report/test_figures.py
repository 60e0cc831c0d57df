from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from finished import CUT, RECORD, figures, finalist, make
from secateur.records import BASELINES, Arm, Edit, Evaluation, Quantized, Sensitivity, Trial
from secateur.report.front_figure import ARM_NAMES, AXES, SYMBOLS, front_figure
from secateur.report.group_figures import cuts_figure, sensitivity_figure
from secateur.report.style import COLOURS
from secateur.report.training_figure import training_figure


def test_figures_hold_the_numbers():
    front = front_figure(RECORD, "latency")
    by_name = {trace.name: trace for trace in front.data}
    passed, lost = by_name["finalist, passed the gate"], by_name["finalist, not passed"]
    assert (list(passed.x), list(lost.x)) == ([0.4, 0.8], [0.3])
    assert list(passed.error_x.array) == pytest.approx([0.01] * 2)
    assert (passed.marker.symbol, lost.marker.symbol) == ("circle", "circle-open")
    assert len(by_name["uniform family"].x) == 1
    assert "sampler" not in by_name, "repeats and failures are no points"
    sizes = front_figure(RECORD, "size")
    assert list({t.name: t for t in sizes.data}["finalist, passed the gate"].x) == pytest.approx([0.4, 0.8])
    bars = cuts_figure(RECORD).data
    assert {tuple(b.x) for b in bars} == {("a<b>",)}
    assert list(bars[0].y) == [0.5]
    curve = sensitivity_figure(RECORD).data[0]
    assert (list(curve.x), list(curve.y)) == ([0.0, 0.5], [0.0, 0.3])


def test_a_training_is_drawn_by_step_above_its_scores_and_without_them_by_epoch():
    stepped = finalist("f1-aa", 0.88, 0.4, losses=(0.5,), curve=((4, 0.6), (7, 0.4)), scores=((7, 0.8),))
    twin = finalist("f1-aa-int8", 0.87, 0.2, quantized=Quantized("f1-aa", "f1"))
    figure = training_figure(make([stepped, twin], "f1-aa"))
    lines = [(trace.name, trace.yaxis, trace.x, trace.y) for trace in figure.data]
    assert lines == [("f1", "y", (4, 7), (0.6, 0.4)), ("f1", "y2", (7,), (0.8,))]
    assert figure.layout.xaxis2.title.text == "step"
    earlier = training_figure(make([finalist("f1-aa", 0.88, 0.4, losses=(0.5, 0.3))], "f1-aa"))
    assert [(trace.x, trace.y) for trace in earlier.data] == [((1, 2), (0.5, 0.3))]
    assert earlier.layout.xaxis.title.text == "epoch"


def test_int8_twins_are_points_of_the_front_with_a_line_from_where_they_come():
    made = {"searched": {}, "candidate": CUT}
    twins = [
        finalist("f1-aa-int8", 0.87, 0.2, quantized=Quantized("f1-aa", "f1"), **made),
        finalist("dense-int8", 0.89, 0.5, quantized=Quantized("dense", "dense"), **made),
    ]
    record = make([finalist("f1-aa", 0.88, 0.4), *twins], "f1-aa")
    traces = front_figure(record, "latency").data
    passed = next(trace for trace in traces if trace.name == "finalist, passed the gate")
    assert list(passed.text) == ["f1", "f1 int8", "dense int8"]
    lines = [[*zip(trace.x, trace.y, strict=True)] for trace in traces if trace.mode == "lines"]
    assert lines[1:] == [[(0.4, 0.88), (0.2, 0.87)], [(1.0, 0.9), (0.5, 0.89)]]
    rows = {trace.hovertemplate.split("</b>")[0] for trace in cuts_figure(record).data}
    assert rows == {"<b>f1-aa"}


def test_infeasible_trials_are_crossed_out_and_in_no_arm():
    record = make([finalist("f1", 0.85, 0.5)], "f1")
    traces = {trace.name: trace for trace in front_figure(replace(record, infeasible=(1,)), "latency").data}
    assert traces["infeasible"].x == (0.5,)
    assert traces["infeasible"].marker.symbol == "x-thin-open"
    assert "uniform family" not in traces
    assert {"infeasible", "uniform family"} & {t.name for t in front_figure(record, "latency").data} == {
        "uniform family"
    }


def test_arms_can_be_told_apart_and_baselines_are_open():
    assert set(ARM_NAMES) | {"dense"} == set(get_args(Arm)) == set(SYMBOLS) | {"dense"}
    assert set(get_args(Arm)) <= set(COLOURS)
    own = tuple(Trial(i, a, a, Evaluation(CUT, a, figures(0.7, 0.5, 4e5)), None) for i, a in enumerate(ARM_NAMES))
    traces = {t.name: t.marker for t in front_figure(replace(RECORD, trials=own), "size").data}
    looks = {arm: (traces[name].symbol, traces[name].color) for arm, name in ARM_NAMES.items()}
    assert len(set(looks.values())) == len(looks)
    assert {arm for arm, (symbol, _) in looks.items() if symbol.endswith("-open")} == {*BASELINES}


def test_what_was_not_evaluated_in_full_is_no_point_of_the_front():
    """Rejected unseen: no score. Given up early: a score on a part of the data."""
    costs = {"size": figures(0.7, 0.5, 4e5)["size"]}
    trials = (
        Trial(0, "knapsack", "k", Evaluation(CUT, "0", costs, stopped="rejected unseen"), None),
        Trial(1, "sampler", "", Evaluation(CUT, "1", figures(0.2, 0.5, 4e5), stopped="after 8 of 60 samples"), None),
        Trial(2, "sampler", "", Evaluation(CUT, "2", figures(0.7, 0.5, 4e5)), None),
    )
    traces = {t.name: t for t in front_figure(replace(RECORD, trials=trials, infeasible=(0, 1)), "size").data}
    assert list(traces["sampler"].y) == [0.7]
    assert not {"knapsack points", "infeasible"} & set(traces)


@pytest.mark.parametrize("axis", AXES)
def test_legends_stand_below_the_axes_and_titles_fit_a_phone(axis):
    figure = front_figure(RECORD, axis)
    assert (figure.layout.legend.yref, figure.layout.legend.y, figure.layout.legend.yanchor) == (
        "container",
        0,
        "bottom",
    )
    assert len(figure.layout.xaxis.title.text) <= 32


def test_of_many_groups_the_steepest_have_colours_and_the_others_share_an_entry():
    names = [f"g{i:02}" for i in range(30)]
    groups = tuple(replace(RECORD.groups[0], name=name) for name in names)
    probes = tuple(
        Sensitivity(name, Edit("channels", 8, "l2"), 0.5, float(i), 1.0, 1.0, 1.0) for i, name in enumerate(names)
    )
    figure = sensitivity_figure(replace(RECORD, groups=groups, sensitivities=probes))
    assert len(figure.data) == 30
    entries = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(entries) == sorted(["14 flatter groups", *names[-16:]])
    assert len({(t.line.color, t.line.dash) for t in figure.data if t.name in names}) == 16
