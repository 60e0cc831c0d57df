from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur.search.parego import RHO, parego_losses


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
