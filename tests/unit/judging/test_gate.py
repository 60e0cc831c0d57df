"""The gate: a goal must have been shown to hold; test data can refuse the alias."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.evaluators.paired import change
from secateur.evaluators.sample_scores import Scores
from secateur.judging.gate import Bar, Contender, better, checks, front_of, judged, veto
from secateur.records import SHARE, Candidate, Evaluation, Goal, Measurement

OBJECTIVES = {"accuracy": "maximize", "latency": "minimize", "size": "minimize"}
WITHIN_5 = Goal("accuracy", "at_least", 0.9, 0.5, "accuracy within 0.05 of the dense model", drop=0.05)


def right(samples, *wrong):
    """Scores of a network that gets everything right but these samples."""
    values = np.ones(samples)
    values[list(wrong)] = 0
    return Scores(samples, per_sample=True, values=values)


def contender(scores, latency=0.5, size=100.0, noise=0.01):
    figures = {
        "accuracy": Measurement(scores.value, "score", "measured", scores.samples, (scores.value - 0.02, scores.value + 0.02)),
        "latency": Measurement(latency, "of dense", "measured", 24, (latency - noise, latency + noise)),
        "size": Measurement(size, "bytes", "computed"),
    }  # fmt: skip
    return Contender(Evaluation(Candidate({}), str(id(scores)), figures), scores)


def missed(goals, finalist, dense):
    return tuple(check.missed for check in checks(Bar(goals, OBJECTIVES, SHARE), finalist, dense) if check.missed)


DENSE = contender(right(250, *range(10)), 1.0, 200.0)


@pytest.mark.parametrize(
    ("lost", "won", "passes"),
    [
        (3, 1, True),  # -0.8 points, and at least -2.6
        (11, 4, False),  # -2.8 points, but a loss of 5.3 cannot be excluded: the point alone would have passed
        (14, 0, False),
    ],
)
def test_a_loss_passes_where_its_bound_is_allowed(lost, won, passes):
    """The dense model fails on 10 of 250; the finalist gets `won` of those right and fails on `lost` others."""
    finalist = contender(right(250, *range(won, 10), *range(100, 100 + lost)))
    reasons = missed([WITHIN_5], finalist, DENSE)
    assert (reasons == ()) == passes
    if not passes:
        assert "cannot be excluded" in reasons[0]


def test_more_samples_show_what_few_cannot():
    """-2.8 points are within 5 on 2,500 samples."""
    dense = contender(right(2500, *range(100)))
    finalist = contender(right(2500, *range(40, 100), *range(1000, 1110)))
    assert change(finalist.scores, dense.scores).value == pytest.approx(-0.028)
    assert missed([WITHIN_5], finalist, dense) == ()


def test_a_floor_is_the_networks_own():
    floor = Goal("accuracy", "at_least", 0.9, 0.5, "accuracy at least 0.9")
    assert missed([floor], contender(right(250, *range(10))), DENSE) == ()
    near = missed([floor], contender(right(250, *range(20))), DENSE)
    assert near == ("92.0 %, and it may be 88.7 %",)


@pytest.mark.parametrize(
    ("goal", "passes"),
    [
        (Goal("latency", "at_most", 0.52, 0.52, "latency at most 0.52"), True),
        (Goal("latency", "at_most", 0.505, 0.505, "latency at most 0.505"), False),
        (Goal("size", "at_most", 100.0, 100.0, "size at most 100"), True),
        (Goal("energy", "at_most", 1.0, 1.0, "energy at most 1"), False),
    ],
)
def test_a_cost_keeps_its_limit_with_its_whole_interval(goal, passes):
    assert (missed([goal], contender(right(250)), DENSE) == ()) == passes


def test_one_rule_for_each_metric():
    """Scores sample by sample, latencies by the interval of their difference, bytes as they are."""
    first, second = contender(right(250, *range(10)), 0.50, 100), contender(right(250, *range(18)), 0.513, 101)
    assert better(first, second, "accuracy", "maximize"), (
        "eight samples that only one gets right, none that only the other"
    )
    assert not better(second, first, "accuracy", "maximize")
    apart = contender(right(250, *range(100, 118)), 0.516, 99)
    assert not better(first, apart, "accuracy", "maximize"), "the same two scores, but they differ on 28 samples"
    assert not better(first, second, "latency", "minimize")
    assert better(first, apart, "latency", "minimize"), "0.016 apart, known to 0.014, although the intervals meet"
    assert better(first, second, "size", "minimize")


def test_the_front_of_finalists_rests_on_pairs():
    """Marginal intervals of two points each let the second stay: they overlap."""
    first, second = contender(right(250, *range(10)), 0.5, 100), contender(right(250, *range(18)), 0.5, 100)
    assert front_of([DENSE, first, second], OBJECTIVES) == [first]


@pytest.mark.parametrize(
    ("lost", "refused"),
    [
        (14, False),  # -4.7 points, allowed
        (22, False),  # -7.3 points, but it may be 4.9: no contradiction
        (40, True),
    ],
)
def test_test_data_refuses_where_it_contradicts_the_goal(lost, refused):
    tested, dense = right(300, *range(lost)), right(300)
    said = veto([WITHIN_5], tested, dense, SHARE)
    assert (said is not None) == refused
    if refused:
        assert said.startswith("on test data -13.3 points (-17.")
        assert said.endswith("not accuracy within 0.05 of the dense model")


def test_test_data_refuses_a_floor_that_is_missed_and_nothing_without_a_goal_on_the_score():
    floor = Goal("accuracy", "at_least", 0.95, 0.5, "accuracy at least 0.95")
    assert veto([floor], right(300, *range(40)), right(300), SHARE) is not None
    assert veto([floor], right(300, *range(20)), right(300), SHARE) is None
    assert veto([Goal("size", "at_most", 1, 1, "size at most 1")], right(300, *range(200)), right(300), SHARE) is None


def test_who_cannot_be_compared_fails_and_takes_no_part():
    """A score for all samples that no resample has; the others are judged as if it were not there."""
    known = Scores(250, per_sample=False, values=np.concatenate([[0.95], np.linspace(0.9, 1.0, 500)]))
    unknown = Scores(250, per_sample=False, values=np.array([0.99] + [np.nan] * 500))
    dense, sound, lost = contender(known, 1.0, 200.0), contender(known), contender(unknown, 0.1, 1.0)
    verdicts, failures = judged({"sound": sound, "lost": lost}, dense, Bar([WITHIN_5], OBJECTIVES, SHARE))
    assert [*verdicts] == ["sound"]
    assert verdicts["sound"].passed
    assert failures["lost"].startswith(
        "it cannot be compared with the dense model: the score of most resampled data is not"
    )
    assert not better(lost, sound, "accuracy", "maximize"), "nothing is shown"
