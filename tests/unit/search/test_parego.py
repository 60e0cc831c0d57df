from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur.records import Candidate, Evaluation, Goal, Measurement
from secateur.search.parego import RHO, parego_losses, score


def rng(seed=0):
    return np.random.default_rng(seed)


def test_one_objective_keeps_its_order_and_spans_the_unit_interval():
    losses = parego_losses(np.array([[3.0], [1.0], [2.0]]), np.zeros((3, 0)), rng())
    assert losses == pytest.approx([1 + RHO, 0.0, (1 + RHO) / 2])


def test_two_objectives_by_hand():
    weights = rng(5).dirichlet(np.ones(2))
    losses = parego_losses(np.array([[0.0, 4.0], [10.0, 0.0], [5.0, 3.0]]), np.zeros((3, 0)), rng(5))
    shares = np.array([[0, 1], [1, 0], [0.5, 0.75]]) * weights
    assert losses == pytest.approx(shares.max(axis=1) + RHO * shares.sum(axis=1))


def test_weights_are_drawn_anew_at_each_call():
    generator = rng()
    costs = np.array([[0.0, 1.0], [1.0, 0.0]])
    best = {int(np.argmin(parego_losses(costs, np.zeros((2, 0)), generator))) for _ in range(30)}
    assert best == {0, 1}


@given(
    hnp.arrays(float, (12, 2), elements=st.floats(-1e6, 1e6)),
    hnp.arrays(float, (12, 2), elements=st.floats(-1, 1)),
    st.integers(0, 100),
)
def test_an_infeasible_row_is_worse_than_every_feasible_one_and_a_dominated_row_is_not_better(costs, violations, seed):
    losses = parego_losses(costs, violations, rng(seed))
    feasible = (violations <= 0).all(axis=1)
    if feasible.any() and not feasible.all():
        assert losses[~feasible].min() >= losses[feasible].max()
    for i in np.flatnonzero(feasible):
        for j in np.flatnonzero(feasible):
            if (costs[i] <= costs[j]).all():
                assert losses[i] <= losses[j]


def test_infinite_costs_are_the_worst_that_was_seen_and_leave_the_others_their_scale():
    losses = parego_losses(np.array([[0.0], [1.0], [np.inf], [0.5]]), np.zeros((4, 0)), rng())
    assert losses == pytest.approx([0.0, 1 + RHO, 1 + RHO, (1 + RHO) / 2])


OBJECTIVES = {"accuracy": "maximize", "size": "minimize"}
GOALS = (
    Goal("accuracy", "at_least", 0.8, 0.5, "accuracy at least 0.8"),
    Goal("size", "at_most", 90, 90, "size at most 90"),
)


def network(key="0b", failure=None, **figures):
    measured = {name: Measurement(value, "", "computed") for name, value in figures.items()}
    return Evaluation(Candidate({}), key, measured, failure)


DENSE = network(accuracy=0.9, size=100.0).measurements


def scored(evaluation, seed=3):
    return score(evaluation, OBJECTIVES, DENSE, GOALS, seed)


def test_a_networks_score_by_hand():
    weights = np.random.default_rng([3, 0x0B]).dirichlet(np.ones(2))
    shares = np.array([(0.9 - 0.7) / (0.9 - 0.5), 0.4]) * weights
    assert scored(network(accuracy=0.7, size=40.0)) == pytest.approx(-(shares.max() + RHO * shares.sum()))
    assert scored(network(accuracy=0.9, size=0.0)) == 0.0


def test_weights_belong_to_the_network_and_to_the_seed():
    numbers = {scored(network(key, accuracy=0.6, size=20.0), seed) for key in ("0a", "0b") for seed in (1, 2)}
    assert len(numbers) == 4
    assert scored(network(accuracy=0.6, size=20.0)) == scored(network(accuracy=0.6, size=20.0))


@given(st.floats(0.5, 1.0), st.floats(0, 90), st.floats(0, 0.49), st.floats(0, 1000))
def test_feasible_is_above_infeasible_and_failed_below_all(accuracy, size, poor, large):
    good = scored(network(accuracy=accuracy, size=size))
    bad = scored(network(accuracy=poor, size=large))
    failed = scored(network("", "no channel is left"))
    assert 0 >= good >= -(1 + RHO) - 1e-12
    assert -(1 + RHO) > bad > failed
    assert scored(network(accuracy=accuracy)) == failed, "an objective is missing"


def test_a_score_is_finite_where_nothing_may_be_lost_and_the_dense_network_costs_nothing():
    dense = network(accuracy=0.9, size=0.0).measurements
    goals = (Goal("accuracy", "at_least", 0.9, 0.9, "accuracy at least 0.9"),)
    assert np.isfinite(score(network(accuracy=0.9, size=0.5), OBJECTIVES, dense, goals, 0))
