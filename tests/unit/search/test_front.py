"""Fronts against brute force, on random points with ties and failures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.records import Candidate, Evaluation, Measurement
from secateur.search.front import as_costs, choose, dominates, front, hypervolume, knee

OBJECTIVES = {"accuracy": "maximize", "latency": "minimize", "size": "minimize"}


def evaluation(*values, noise=0.0, failure=None):
    measurements = {
        name: Measurement(value, "", "measured", interval=(value - noise, value + noise) if noise else None)
        for name, value in zip(OBJECTIVES, values, strict=True)
    }
    return Evaluation(Candidate({}), "", measurements, failure)


grid = st.tuples(*[st.integers(0, 4).map(float)] * 3)


@given(st.lists(grid, max_size=25))
def test_exact_figures_give_the_pareto_front(points):
    evaluations = [evaluation(*p) for p in points]

    def beaten(p):
        return any(q[0] >= p[0] and q[1] <= p[1] and q[2] <= p[2] and q != p for q in points)

    expected = [e for e, p in zip(evaluations, points, strict=True) if not beaten(p)]
    assert front(evaluations, OBJECTIVES) == expected


@given(st.lists(grid, min_size=1, max_size=15), st.floats(0.0, 3.0))
def test_noise_only_ever_adds_members_and_a_front_is_never_empty(points, noise):
    exact = front([evaluation(*p) for p in points], OBJECTIVES)
    noisy = front([evaluation(*p, noise=noise) for p in points], OBJECTIVES)
    assert {tuple(m.value for m in e.measurements.values()) for e in exact} <= {
        tuple(m.value for m in e.measurements.values()) for e in noisy
    }
    assert noisy


def test_a_difference_within_noise_does_not_dominate():
    fast, slow = evaluation(0.9, 0.50, 10), evaluation(0.9, 0.51, 10)
    assert dominates(fast, slow, OBJECTIVES)
    assert not dominates(evaluation(0.9, 0.50, 10, noise=0.02), evaluation(0.9, 0.51, 10, noise=0.02), OBJECTIVES)
    assert not dominates(fast, fast, OBJECTIVES)


def test_failures_and_missing_figures_never_belong():
    sound = evaluation(0.5, 1.0, 1.0)
    nan = evaluation(0.9, float("nan"), 0.1)
    missing = Evaluation(Candidate({}), "", {"accuracy": Measurement(1.0, "", "measured")})
    assert front([evaluation(0.9, 0.1, 0.1, failure="broke"), nan, missing, sound], OBJECTIVES) == [sound]


def by_counting(points, reference):
    """Every cell of the integer grid below the reference that some point dominates."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return sum(any(all(p[i] <= cell[i] for i in range(len(cell))) for p in points) for cell in cells)


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=10))
def test_hypervolume_against_counting_cells(points):
    array = np.array(points, float).reshape(-1, 3)
    assert hypervolume(array, np.array([5.0, 4.0, 6.0])) == pytest.approx(by_counting(points, (5, 4, 6)))


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 2), max_size=10))
def test_hypervolume_of_two_objectives(points):
    array = np.array(points, float).reshape(-1, 2)
    assert hypervolume(array, np.array([5.0, 4.0])) == pytest.approx(by_counting(points, (5, 4)))


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=1, max_size=8), st.integers(1, 4))
def test_chosen_points_are_distinct_and_the_first_adds_most(points, count):
    array, reference = np.array(points, float), np.array([6.0, 6.0])
    chosen = choose(array, reference, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(points))
    assert hypervolume(array[[chosen[0]]], reference) == max(
        hypervolume(array[[i]], reference) for i in range(len(points))
    )


def test_the_knee_weighs_losses_by_what_is_allowed():
    dense = evaluation(0.90, 1.0, 100).measurements
    same, half, broken = evaluation(0.90, 0.95, 95), evaluation(0.89, 0.5, 50), evaluation(0.851, 0.45, 45)
    assert knee([same, half, broken], dense, OBJECTIVES, {"accuracy": 0.05}) == 1
    assert knee([same, half, broken], dense, OBJECTIVES, {"accuracy": 0.5}) == 2
    assert knee([same, half], dense, OBJECTIVES, {"accuracy": 0.005}) == 0


def test_costs_are_all_to_be_minimised():
    assert as_costs([evaluation(0.9, 0.5, 7)], OBJECTIVES).tolist() == [[-0.9, 0.5, 7.0]]
    assert as_costs([], OBJECTIVES).shape == (0, 3)
