from __future__ import annotations

import numpy as np
import pytest

from secateur.definition import ConstraintDefinition
from secateur.records import Candidate, Evaluation, Measurement
from secateur.search.goals import LEAST_FITTED, Forecast, goals_of, holds, unreachable, violations


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


def learned(noise, count=20):
    forecast = Forecast()
    for i in range(count):
        share = 0.2 + 0.04 * i
        latency = 0.1 + 0.8 * share + noise * (-1) ** i
        figures = measured(macs=4e7 * share, parameters=1e5 * share**2, latency=latency)
        forecast.learn(Evaluation(Candidate({}), str(i), figures))
    return forecast


def test_a_forecast_waits_for_figures_and_carries_its_doubt():
    exact = {"macs": 2e7, "parameters": 2.5e4}
    assert learned(0.0, count=7).of("latency", exact) is None
    sharp, blunt = learned(0.0).of("latency", exact), learned(0.05).of("latency", exact)
    assert sharp.value == pytest.approx(0.5, abs=1e-6)
    assert sharp.slack < 0.001
    # 17 degrees of freedom: 3.49 standard deviations of a residual (0.054) and of the line beneath it.
    assert blunt.slack == pytest.approx(3.49 * 0.054 * (1 + 0.07) ** 0.5, rel=0.05)
    assert learned(0.0).of("macs", exact).slack == 0.0


def test_a_network_on_the_limit_is_hardly_ever_rejected_even_on_eight_measured_ones():
    """The chance of three standard deviations, 0.13 %: without degrees of freedom and leverage it was ten times that."""
    rng, limits = np.random.default_rng(0), goals(latency={"at_most": 0.5})
    rejected = 0
    for _ in range(1500):
        forecast = Forecast()
        for share in rng.uniform(0.2, 1.0, LEAST_FITTED):
            figures = measured(
                macs=4e7 * share, parameters=1e5 * share**2, latency=share + 0.03 * rng.standard_normal()
            )
            forecast.learn(Evaluation(Candidate({}), "", figures))
        # The network's own latency would be measured with the same noise: that of the limit is what is foreseen.
        share = 0.5 + 0.03 * rng.standard_normal()
        rejected += forecast.rejects(limits, {"macs": 4e7 * share, "parameters": 1e5 * share**2}) is not None
    assert rejected / 1500 < 0.005


def test_far_from_what_was_measured_a_forecast_doubts_more():
    near, far = (learned(0.05).of("latency", {"macs": m, "parameters": 2.5e4}).slack for m in (2e7, 8e7))
    assert far > 1.5 * near


def test_what_was_only_predicted_teaches_nothing():
    forecast = learned(0.0, count=LEAST_FITTED - 1)
    guessed = measured(macs=2e7, parameters=1e4) | {"latency": Measurement(9.0, "of dense", "predicted")}
    for _ in range(5):
        forecast.learn(Evaluation(Candidate({}), "", guessed))
    assert forecast.of("latency", {"macs": 2e7, "parameters": 2.5e4}) is None


@pytest.mark.parametrize(("noise", "rejected"), [(0.0, True), (0.05, False)])
def test_only_what_is_certain_is_rejected(noise, rejected):
    limits = goals(latency={"at_most": 0.45})
    assert (learned(noise).rejects(limits, {"macs": 2e7, "parameters": 2.5e4}) is not None) == rejected


def test_an_unreachable_budget_is_one_that_the_smallest_network_misses_beyond_noise():
    (goal,) = goals(latency={"speedup_at_least": 4})
    smallest = {"latency": Measurement(0.27, "of dense", "measured", interval=(0.24, 0.3))}
    assert unreachable([goal], smallest) == []
    smallest = {"latency": Measurement(0.27, "of dense", "measured", interval=(0.26, 0.28))}
    assert unreachable([goal], smallest) == [(goal, 0.27)]
