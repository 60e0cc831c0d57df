"""Which of the knapsack's solutions are evaluated first."""

import numpy as np

from secateur.records import Candidate
from secateur.search.front import Archive
from secateur.search.planner import Solution, by_gain

OBJECTIVES = {"accuracy": "maximize", "latency": "minimize"}


def solutions(*costs: tuple[float, float]) -> list[Solution]:
    """Their costs: minus the score, and the latency."""
    return [Solution(Candidate({}), pair) for pair in costs]


def order(found: list[Solution], archive: Archive) -> list[tuple[float, ...]]:
    return [solution.costs for solution in by_gain(found, archive, np.random.default_rng(0))]


def test_the_solution_that_adds_most_comes_first_wherever_it_stands():
    mild, middle, strong, worse = (-0.9, 0.95), (-0.9, 0.8), (-0.8, 0.2), (-0.5, 0.97)
    archive = Archive(OBJECTIVES, np.array([-0.4, 1.0]))
    # shares of the box below the corner: .5 × .05, .5 × .2, .4 × .8, .1 × .03
    assert order(solutions(mild, worse, middle, strong), archive)[0] == strong
    # beside it the middle one adds .1 × .2, of which the mild one has a quarter
    assert order(solutions(mild, worse, middle, strong), archive)[1] == middle


def test_what_the_front_dominates_adds_nothing_and_comes_last():
    archive = Archive(OBJECTIVES, np.array([-0.4, 1.0]))
    dominated, new = (-0.7, 0.3), (-0.9, 0.9)
    archive.points = np.array([[-0.8, 0.2]])
    assert order(solutions(dominated, new), archive) == [new, dominated]
