"""The page on an invented record; the page of a real run is looked at in end_to_end."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest

from secateur.records import (
    BASELINES,
    Arm,
    ArmResult,
    Audit,
    Candidate,
    Cut,
    Evaluation,
    Excluded,
    Goal,
    GroupSummary,
    Measurement,
    Recovered,
    Rung,
    RunRecord,
    Sensitivity,
    Trial,
)
from secateur.report import HEADINGS, headline, rows, write_report
from secateur.report.figures import ARM_NAMES, COLOURS, SYMBOLS, cuts_figure, front_figure, sensitivity_figure
from secateur.report.table import audit_facts


def figures(accuracy, latency, size):
    return {
        "accuracy": Measurement(accuracy, "score", "measured", 100, (accuracy - 0.02, accuracy + 0.02), "cpu"),
        "latency": Measurement(latency, "of dense", "measured", 8, (latency - 0.01, latency + 0.01), "cpu", {"p50_ms": latency, "min_ms": 1, "p90_ms": 2}),
        "size": Measurement(size, "bytes", "computed"),
        "macs": Measurement(size * 10, "MACs", "computed"),
        "parameters": Measurement(size / 4, "parameters", "computed"),
        "damage": Measurement(1 - accuracy, "relative squared error", "measured"),
    }  # fmt: skip


DENSE = figures(0.9, 1.0, 1e6)
CUT = Candidate({"a<b>": Cut("l2", 8), "c": Cut(None, 8)})


def finalist(name, accuracy, latency, **changes):
    given = {
        "name": name, "trial": 2, "candidate": CUT, "searched": figures(accuracy - 0.2, latency, latency * 1e6),
        "measurements": figures(accuracy, latency, latency * 1e6), "folder": name, "epochs": 3, "seconds": 1.0,
        "on_front": True, "feasible": True, "test": DENSE["accuracy"],
    }  # fmt: skip
    return Recovered(**(given | changes))


AUDIT = Audit(3, 0.333, 0.012, -0.004, -0.011)
ARMS = (
    ArmResult("search", 3, 0.31),
    ArmResult("uniform", 1, 0.25),
    ArmResult("random", 1, 0.1),
    ArmResult("global", 1, 0.2),
)


def make(finalists, knee):
    trials = (
        Trial(0, "dense", "dense", Evaluation(Candidate({}), "0", DENSE), None),
        Trial(1, "uniform", "uniform 0.5 l2", Evaluation(CUT, "1", figures(0.7, 0.5, 4e5)), None),
        Trial(2, "sampler", "", Evaluation(CUT, "1", figures(0.7, 0.5, 4e5)), 1),
        Trial(3, "sampler", "", Evaluation(CUT, "2", {}, "it broke"), None),
    )
    return RunRecord(
        run_id="r-1", name="a <name>", workload="w", score_name="top-1 accuracy", started="now",
        definition={"name": "x", "search": {"seed": 3}}, environment={"torch": "2"}, device="cpu",
        objectives={"accuracy": "maximize", "latency": "minimize", "size": "minimize"}, goals=(Goal("accuracy", "at_least", 0.85, 0.5, "accuracy within 0.05 of the dense model"),),
        audit=AUDIT, arms=ARMS, ended="all trials are done",
        groups=(GroupSummary("a<b>", "Conv2d", 16, 10, 10, ("l2",), (16, 8)), GroupSummary("c", "Conv2d", 8, 10, 10, ("l2",), (8, 4))),
        excluded=(Excluded("z", "Linear", 3, "a <reason>"),), dense={"search": DENSE, "selection": DENSE, "test": DENSE},
        samples=dict.fromkeys(("train", "calibration", "search", "selection", "test"), 100), trials=trials,
        sensitivities=(Sensitivity("a<b>", "l2", 8, 16, 0.3, 2e6, 5e4),), finalists=tuple(finalists), knee=knee, seconds={"search": 3.0},
    )  # fmt: skip


RECORD = make(
    [
        finalist("f1-aa", 0.88, 0.4),
        finalist("f2-bb", 0.7, 0.3, feasible=False, test=None),
        finalist("f3-cc", 0.89, 0.8),
    ],
    "f1-aa",
)


def test_the_table_has_a_row_for_each_model_and_a_cell_for_each_heading():
    table = rows(RECORD)
    assert [row.cells[0] for row in table] == ["dense", "f3-cc", "f1-aa", "f2-bb"]
    assert all(len(row.cells) == len(HEADINGS) for row in table)
    by_name = {row.cells[0]: row for row in table}
    assert by_name["f1-aa"].best
    assert by_name["f1-aa"].cells[1] == "knee of the front"
    assert not by_name["f2-bb"].passed
    assert by_name["f2-bb"].cells[1] == "loses too much"
    assert by_name["f1-aa"].cells[5] == "0.400 ± 0.010 (2.50×)"
    assert by_name["f1-aa"].cells[7] == "400 kB (40%)"


def test_the_headline_is_honest_about_gain_and_loss():
    assert headline(RECORD) == (
        "2 of 3 finalists passed the gate. f1-aa, the knee of the front: 2.50× faster, 2.50× smaller, -2.0 points of top-1 accuracy "
        "on selection data."
    )
    assert (
        headline(make([finalist("f1", 0.5, 0.4, feasible=False)], None)) == "None of the 1 finalists passed the gate."
    )


@pytest.mark.parametrize(
    "finalists",
    [
        RECORD.finalists,
        (),
        (finalist("f1", 0.5, 0.4, measurements={}, failure="it broke", feasible=False, on_front=False),),
    ],
)
def test_the_page_is_whole_and_escapes_what_it_shows(finalists, tmp_path):
    record = make(finalists, "f1-aa" if finalists == RECORD.finalists else None)
    page = write_report(record, tmp_path / "report.html").read_text()
    body = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.S)
    assert "a &lt;name&gt;" in body
    assert "a &lt;reason&gt;" in body
    assert "<name>" not in body
    assert page.count("<section>") == page.count("</section>") >= 4
    assert 'name="viewport"' in page
    for item in finalists:
        assert item.name in body


def test_figures_hold_the_numbers():
    front = front_figure(RECORD, "latency")
    by_name = {trace.name: trace for trace in front.data}
    recovered = by_name["recovered (selection data)"]
    assert list(recovered.x) == [0.4, 0.3, 0.8]
    assert list(recovered.error_x.array) == pytest.approx([0.01] * 3)
    assert list(recovered.marker.symbol) == ["circle", "circle-open", "circle"]
    assert len(by_name["uniform family"].x) == 1
    assert "sampler" not in by_name, "repeats and failures are no points"
    sizes = front_figure(RECORD, "size")
    assert list({t.name: t for t in sizes.data}["recovered (selection data)"].x) == pytest.approx([0.4, 0.3, 0.8])
    bars = cuts_figure(RECORD).data
    assert {tuple(b.x) for b in bars} == {("a<b>",)}
    assert list(bars[0].y) == [0.5]
    curve = sensitivity_figure(RECORD).data[0]
    assert (list(curve.x), list(curve.y)) == ([0.0, 0.5], [0.0, 0.3])


def test_the_page_shows_no_share_where_the_score_is_none(tmp_path):
    """-3.2 dB is not -320 %, and a gain of 0.5 dB is not 50 points, even where both scores lie in [0, 1]."""
    decibel = replace(RECORD, score_unit="dB", audit=replace(AUDIT, regret=0.25))
    by_name = {row.cells[0]: row.cells for row in rows(decibel)}
    assert by_name["f1-aa"][2:5] == ("0.68 ± 0.02 dB", "0.88 ± 0.02 dB", "0.9 ± 0.02 dB")
    assert "-0.02 dB of top-1 accuracy" in headline(decibel)
    facts = audit_facts(decibel)
    assert facts["regret"].startswith("0.25 dB: ")
    assert facts["tuned finalists from search to selection data"] == "-0.004 dB on average"
    front = front_figure(decibel, "size")
    assert front.layout.yaxis.tickformat == ""
    assert front_figure(RECORD, "size").layout.yaxis.tickformat == ".0%"
    assert "points" not in re.sub(
        r"<(script|style)>.*?</\1>", "", write_report(decibel, tmp_path / "r").read_text(), flags=re.S
    )


def test_infeasible_trials_are_crossed_out_and_in_no_arm():
    record = make([finalist("f1", 0.85, 0.5)], "f1")
    traces = {trace.name: trace for trace in front_figure(record, "latency", infeasible={1}).data}
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
    traces = {t.name: t for t in front_figure(replace(RECORD, trials=trials), "size", infeasible={0, 1}).data}
    assert list(traces["sampler"].y) == [0.7]
    assert not {"knapsack points", "infeasible"} & set(traces)


def test_a_search_that_did_not_beat_a_baseline_says_so_first():
    arms = (
        ArmResult("search", 40, 0.2),
        ArmResult("uniform", 3, 0.21),
        ArmResult("random", 0, 0.0),
        ArmResult("global", 2, 0.19),
    )
    said = headline(replace(RECORD, arms=arms))
    assert said.startswith(
        "The search (hypervolume 0.2000) did not beat the baseline: uniform (0.2100 with 3 networks)."
    )
    assert "did not beat" not in headline(RECORD)


def test_a_small_network_trained_from_scratch_is_shown_and_told():
    scratch = finalist("small-dense", 0.87, 0.4, on_front=False, feasible=False, test=None)
    record = replace(RECORD, small_dense=scratch)
    assert "baseline: trained anew" in rows(record)[-1].cells[1]
    assert "cutting brought nothing" not in headline(record)
    as_good = replace(record, small_dense=replace(scratch, measurements=figures(0.88, 0.4, 4e5)))
    assert headline(as_good).startswith("Trained from scratch, the widths of f1-aa do as well as pruned")


def test_the_audit_is_on_the_page(tmp_path):
    rung = Rung("50 training steps", {1: 0.8, 2: 0.7}, (1,))
    page = write_report(replace(RECORD, rungs=(rung,)), tmp_path / "r.html").read_text()
    for text in (
        "Can the search be believed?",
        "Kendall 0.33 over 3 finalists",
        "1.2 points",
        "-0.4 points on average",
        "1 of 2 went on",
    ):
        assert text in page
    unknown = write_report(replace(RECORD, audit=Audit(2, None, None, None, None)), tmp_path / "u.html").read_text()
    assert "not known: 2 finalists" in unknown
