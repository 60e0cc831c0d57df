"""A score that is minimised is treated as its negative that is maximised, wherever scores are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import finished
from secateur.definition import ConstraintDefinition, EvaluatorDefinition
from secateur.errors import DefinitionError
from secateur.evaluators.racing import Race
from secateur.evaluators.sample_scores import Scores, load_scores, save_scores
from secateur.judging.gate import Bar, Contender, judged, veto
from secateur.pipelines.limits import check_direction
from secateur.records import Candidate, Evaluation, Goal, Measurement, gain
from secateur.report.front_figure import front_figure
from secateur.search.audit import audit
from secateur.search.front import knee, reference_point
from secateur.search.goals import goals_of

TURNED = {"accuracy": "minimize", "size": "minimize"}
PLAIN = {"accuracy": "maximize", "size": "minimize"}
SIDES = {"at_least": "at_most", "at_most": "at_least"}


def turned(measurements):
    score = measurements["accuracy"]
    low, high = score.bounds
    return {**measurements, "accuracy": replace(score, value=-score.value, interval=(-high, -low))}


def turned_goal(goal):
    return replace(goal, sense=SIDES[goal.sense], limit=-goal.limit, limit_in_search=-goal.limit_in_search)


@given(
    st.lists(st.floats(1.5, 3), min_size=12, max_size=12),
    st.lists(st.floats(1.5, 3), min_size=12, max_size=12),
    st.floats(0, 1),
    st.floats(1, 3),
)
def test_the_gate_asks_for_the_same(network, reference, drop, limit):
    goals = [
        Goal("accuracy", "at_least", float(np.mean(reference)) - drop, 0.0, "within", drop),
        Goal("accuracy", "at_least", limit, 0.0, "at least"),
    ]
    verdicts = []
    for direction in ("maximize", "minimize"):
        sign = gain(1, direction)
        scores = [Scores(12, True, sign * np.array(values), direction) for values in (network, reference)]
        contenders = [
            Contender(
                Evaluation(
                    Candidate({}),
                    str(number),
                    {
                        "accuracy": Measurement(one.value, "score", "measured", 12),
                        "size": Measurement(1.0, "bytes", "computed"),
                    },
                ),
                one,
            )
            for number, one in enumerate(scores)
        ]
        asked = goals if sign > 0 else [turned_goal(goal) for goal in goals]
        bar = Bar(asked, PLAIN if sign > 0 else TURNED, "")
        found, failures = judged({"f": contenders[0]}, contenders[1], bar)
        assert failures == {}
        refused = [veto([goal], *scores, "") is None for goal in asked]
        verdicts.append((found["f"].on_front, [check.missed is None for check in found["f"].checks], refused))
    assert verdicts[0] == verdicts[1]


def test_scores_are_kept_with_their_direction(tmp_path):
    save_scores(Scores(3, True, np.arange(3.0), "minimize"), tmp_path / "s.npz")
    assert load_scores(tmp_path / "s.npz").direction == "minimize"


@pytest.mark.parametrize("constraint", [("max_drop", "max_rise"), ("at_least", "at_most")])
@pytest.mark.parametrize("recovers", [True, False])
def test_goals_leave_the_same_room(constraint, recovers):
    dense = {"accuracy": Measurement(0.9, "score", "measured")}
    other = turned(dense)
    value = 0.1 if constraint[0] == "max_drop" else 0.85
    (plain,) = goals_of(
        {"accuracy": ConstraintDefinition.model_validate({constraint[0]: value})}, dense, recovers=recovers
    )
    value = value if constraint[0] == "max_drop" else -value
    (found,) = goals_of(
        {"accuracy": ConstraintDefinition.model_validate({constraint[1]: value})}, other, recovers=recovers
    )
    assert replace(found, text="") == replace(turned_goal(plain), text="")


def test_the_worst_corner_and_the_knee_are_the_same():
    def evaluation(score, size):
        return Evaluation(Candidate({}), "k", {"accuracy": Measurement(score, "", "measured"), "size": Measurement(size, "", "computed")})  # fmt: skip

    tried = [evaluation(0.9, 900.0), evaluation(0.88, 500.0), evaluation(0.4, 100.0)]
    dense = evaluation(0.9, 1000.0).measurements
    other = [replace(one, measurements=turned(one.measurements)) for one in tried]
    goal = Goal("accuracy", "at_least", 0.85, 0.7, "t", 0.05)
    for goals in ((), (goal,)):
        corner = reference_point(PLAIN, dense, goals)
        assert reference_point(TURNED, turned(dense), [turned_goal(g) for g in goals]) == corner
    for allowed in ({}, {"accuracy": 0.05}):
        assert knee(other, turned(dense), TURNED, allowed) == knee(tried, dense, PLAIN, allowed)


@pytest.mark.parametrize("mean", [-2.0, 0.3])
def test_who_cannot_reach_the_front_is_given_up(mean):
    draw = torch.Generator().manual_seed(0)
    scores = mean + torch.randn(200, generator=draw)
    costs = {"size": Measurement(900.0, "bytes", "computed")}
    hurdle = {"accuracy": 0.3, "size": 500.0}
    plain = Race(PLAIN, [hurdle], 0.25).lost(scores, 1000, costs)
    other = Race(TURNED, [{**hurdle, "accuracy": -0.3}], 0.25).lost(-scores, 1000, costs)
    assert (plain is None) == (other is None) == (mean > 0)
    if plain:
        assert "the score stays below" in plain
        assert "the score stays above" in other


def test_what_the_search_ranked_first_may_not_be_the_best():
    finalists = [
        replace(finished.finalist(name, score, 0.5), searched={"accuracy": Measurement(seen, "score", "measured")})
        for name, score, seen in (("f1", 0.90, 0.6), ("f2", 0.95, 0.5), ("f3", 0.80, 0.4), ("f4", 0.7, 0.1))
    ]
    others = [replace(f, measurements=turned(f.measurements), searched=turned(f.searched)) for f in finalists]
    verdicts = {f.name: finished.verdict(f.name) for f in finalists}
    plain, other = audit(finalists, verdicts), audit(others, verdicts, "minimize")
    assert other.regret == plain.regret == pytest.approx(0.05)


def test_a_definition_says_the_direction_that_the_workload_says():
    def check(direction, **blocks):
        definition = EvaluatorDefinition.model_validate(
            {"objectives": {"accuracy": direction, "size": "minimize"}, **blocks}
        )
        check_direction(definition, "accuracy", "minimize")

    check("minimize", constraints={"accuracy": {"max_rise": 0.2, "at_most": 12.0}})
    with pytest.raises(DefinitionError, match="'accuracy' is to be minimized, as the workload's score_direction says"):
        check("maximize")
    with pytest.raises(
        DefinitionError,
        match="'max_drop' does not fit 'accuracy', which is to be minimized. Allowed: at_most, .*max_rise",
    ):
        check("minimize", constraints={"accuracy": {"max_drop": 0.2}})


def test_the_figure_has_the_better_score_above():
    record = replace(finished.RECORD, score_direction="minimize", score_name="perplexity")
    axis = front_figure(record, "latency").layout.yaxis
    assert (axis.autorange, axis.title.text) == ("reversed", "perplexity, lower is better")
