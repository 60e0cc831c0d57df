from __future__ import annotations

import pytest

from secateur.definition import ConstraintDefinition
from secateur.records import Measurement
from secateur.search.goals import goals_of, holds, unreachable, violations


def measured(**figures):
    return {name: Measurement(value, "", "computed") for name, value in figures.items()}


DENSE = measured(accuracy=0.9, latency=1.0, size=1e6, macs=4e7)


def goals(*, recovers=True, **constraints):
    declared = {name: ConstraintDefinition.model_validate(goal) for name, goal in constraints.items()}
    return goals_of(declared, DENSE, recovers=recovers)


@pytest.mark.parametrize(
    ("metric", "constraint", "limit", "in_search", "text"),
    [
        ("accuracy", {"max_drop": 0.02}, 0.88, 0.74, "accuracy within 0.02 of the dense model"),
        ("accuracy", {"max_drop": 0.02, "before_recovery": 0.3}, 0.88, 0.6, "accuracy within 0.02 of the dense model"),
        ("accuracy", {"at_least": 0.85}, 0.85, 0.5, "accuracy at least 0.85"),
        ("accuracy", {"at_least": 0.95}, 0.95, 0.828, "accuracy at least 0.95"),
        ("latency", {"speedup_at_least": 2}, 0.5, 0.5, "latency at least 2 times less than the dense model's"),
        ("size", {"smaller_by": 0.4}, 6e5, 6e5, "size smaller by 40% or more"),
        ("macs", {"at_most": 2e7}, 2e7, 2e7, "macs at most 2e+07"),
    ],
)
def test_goals_become_limits(metric, constraint, limit, in_search, text):
    (goal,) = goals(**{metric: constraint})
    assert (goal.limit, goal.limit_in_search) == (pytest.approx(limit), pytest.approx(in_search))
    assert goal.text == text


def test_without_recovery_nothing_is_loosened():
    (goal,) = goals(recovers=False, accuracy={"max_drop": 0.02})
    assert goal.limit_in_search == goal.limit == pytest.approx(0.88)


def test_violations_are_shares_of_the_limit_and_a_missing_figure_is_one():
    both = goals(accuracy={"max_drop": 0.02}, size={"smaller_by": 0.5})
    found = violations(both, measured(accuracy=0.66, size=6e5), in_search=False)
    assert list(found.values()) == [pytest.approx(0.25), pytest.approx(0.2)]
    assert violations(both, {}, in_search=True) == dict.fromkeys((g.text for g in both), 1.0)
    assert holds(both, measured(accuracy=0.9, size=5e5), in_search=False)
    assert not holds(both, measured(accuracy=0.9, size=5.1e5), in_search=False)


def test_an_unreachable_budget_is_one_that_the_smallest_network_misses_beyond_noise():
    (goal,) = goals(latency={"speedup_at_least": 4})
    smallest = {"latency": Measurement(0.27, "of dense", "measured", interval=(0.24, 0.3))}
    assert unreachable([goal], smallest) == []
    smallest = {"latency": Measurement(0.27, "of dense", "measured", interval=(0.26, 0.28))}
    assert unreachable([goal], smallest) == [(goal, 0.27)]
