from __future__ import annotations

from dataclasses import replace

import pytest

from finished import CUT, DENSE, RECORD, figures, finalist, make
from secateur.formatting import duration
from secateur.records import Candidate, Evaluation, Trial
from secateur.report.counts import OUTCOMES, finalists, reasons, searched
from secateur.report.timing import spent

WHOLE = figures(0.7, 0.5, 4e5)
TRIALS = (
    Trial(0, "dense", "dense", Evaluation(Candidate({}), "0", DENSE), None),
    Trial(1, "uniform", "u", Evaluation(CUT, "1", WHOLE), None),
    Trial(2, "sampler", "", Evaluation(CUT, "1", WHOLE), 1),
    Trial(3, "sampler", "", Evaluation(CUT, "3", {}, "it broke"), None),
    Trial(4, "sampler", "", Evaluation(CUT, "3", {}, "it broke"), 3),
    Trial(5, "knapsack", "k", Evaluation(CUT, "5", {}, stopped="size would miss 'x'", rejected=True), None),
    Trial(6, "sampler", "", Evaluation(CUT, "6", WHOLE, stopped="after 8 of 60 samples"), None),
    Trial(7, "sampler", "", Evaluation(CUT, "7", WHOLE), None),
    Trial(8, "sampler", "", Evaluation(CUT, "8", WHOLE), None),
)


def add_up(counts):
    """Every count with parts is their sum."""
    for i, whole in enumerate(counts):
        parts = []
        for part in counts[i + 1 :]:
            if part.depth <= whole.depth:
                break
            if part.depth == whole.depth + 1:
                parts.append(part.number)
        assert not parts or sum(parts) == whole.number, whole
    return {count.what.split(",")[0].split(":")[0]: count.number for count in counts}


def test_each_proposal_is_counted_once():
    record = replace(RECORD, trials=TRIALS, infeasible=(7,), searched_front=(8,))
    found = add_up(searched(record))
    assert found == {
        "proposals": 9,
        "the dense model itself": 1,
        "the same network as an earlier proposal": 2,
        "rejected before evaluation": 1,
        "stopped early": 1,
        "failed": 1,
        "evaluated in full": 3,
        "infeasible": 1,
        "feasible": 2,
        "dominated": 1,
        "on the front of the search": 1,
    }
    assert reasons(record) == [("it broke", 1)]


def test_each_finalist_falls_under_one_line():
    every = [
        finalist("a", 0.5, 0.4, failure="it broke", measurements={}),
        *(finalist(name, 0.5, 0.4) for name in "bcde"),
    ]
    said = {"b": {"missed": "no"}, "c": {"missed": "no", "on_front": False}, "d": {"on_front": False}}
    counts = finalists(make(every, "e", said))
    add_up(counts)
    assert [(count.what, count.number) for count in counts[1:]] == [(text, 1) for text in OUTCOMES]


def test_parts_stand_under_their_stage_and_add_up_to_it():
    lines = spent(replace(RECORD, seconds={"search": 30.0, "recover": 60.0, "recover.training": 45.0}))
    assert [(line.what, line.time, line.part) for line in lines] == [
        ("search", "30 s", False),
        ("recovery of the finalists", "60 s", False),
        ("fine-tuning", "45 s", True),
        ("the rest", "15 s", True),
        ("all stages", "90 s", False),
    ]
    assert lines[2].share == pytest.approx(0.5)
    assert spent(replace(RECORD, seconds={})) == []


def test_durations_for_people():
    assert [duration(s) for s in (0.42, 9.96, 52.4, 119, 473, 7500)] == [
        "0.4 s",
        "10 s",
        "52 s",
        "119 s",
        "7 min 53 s",
        "2 h 05 min",
    ]
