from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invented import HARM, exact, make_space, resolve
from secateur.records import CHANNELS, Candidate, Edit, Evaluation, Group, Measurement, Weights
from secateur.search.additive import AdditiveModel, Regression, cheapest
from secateur.search.knapsack import Curve, solve
from secateur.search_spaces import UNTOUCHED, Choice, SearchSpace, rungs

SPACE = make_space()
TRUE = {("a", "l1"): 1.0, ("a", "l2"): 1.4, ("b", "l1"): 1.0, ("b", "l2"): 0.7, ("c", "l1"): 1.0, ("c", "l2"): 1.0}
"""What a cut does together with others, over what it does alone."""


def alone(group, kept):
    return HARM[group] * (1 - kept / 32) ** 2


def model(evaluations=()):
    at = {width: SPACE.choices["a"].widths.index(width) for width in (24, 16, 8)}
    damage = {g: {"l1": {at[w]: alone(g, w) for w in at}, "l2": {at[16]: alone(g, 16)}} for g in HARM}
    saving = {g: {at[w]: (1 - w / 32) / 3 for w in at} for g in HARM}
    made = AdditiveModel(SPACE, damage, {"macs": saving}, {"l1": 1.0, "l2": 1.0})
    made.observe(list(evaluations), {"macs": 1.0})
    return made


def observed(count, rng):
    for _ in range(count):
        candidate = Candidate(
            {g: (Edit(CHANNELS, by=str(rng.choice(["l1", "l2"])), level=int(rng.choice([24, 16, 8]))),) for g in HARM}
        )
        harm = sum(TRUE[g, edit.by] * alone(g, edit.level) for g, (edit,) in candidate.edits.items())
        figures = {"damage": harm, "macs": exact(resolve(candidate))["macs"]}
        yield Evaluation(candidate, "", {n: Measurement(v, "", "computed") for n, v in figures.items()})


def test_without_observations_the_curves_are_those_of_the_sweep():
    curves = model().damages(None)
    assert curves["b"]["l1"][SPACE.choices["b"].widths.index(16)] == pytest.approx(alone("b", 16))
    assert curves["b"]["l2"] == pytest.approx(curves["b"]["l1"]), "one point of its own, on the same curve"


def both_kinds():
    """One group of which channels leave or weights become zero."""
    group = Group("a", "Conv2d", (), 32, tuple(range(32)), 100, 100, weights=(Weights("a", (0,), 4, 1),))
    ladder = (UNTOUCHED, *rungs(group, "channels", (24, 16, 8)), *rungs(group, "weights", (500, 200)))
    return SearchSpace({"a": Choice(group, ("l1", "l2", "weights/magnitude"), ladder)}, ())


def test_kinds_of_cuts_have_curves_of_their_own_on_one_ladder():
    space = both_kinds()
    at = {option.level: position for position, option in enumerate(space.choices["a"].ladder)}
    damage = {"a": {"l1": {at[24]: 0.1, at[8]: 0.9}, "weights/magnitude": {at[500]: 0.02, at[200]: 0.3}}}
    savings = {"macs": {"a": {at[24]: 0.25, at[8]: 0.75, at[500]: 0.0, at[200]: 0.0}}}
    savings["nonzero"] = {"a": {at[24]: 0.25, at[8]: 0.75, at[500]: 0.5, at[200]: 0.8}}
    made = AdditiveModel(space, damage, savings, {})
    made.observe([], {})
    curves = made.damages(None)["a"]
    assert curves["l1"][at[8]] == pytest.approx(0.9)
    assert np.isinf(curves["l1"][[at[500], at[200]]]).all(), "no criterion of channels offers that"
    assert np.isinf(curves["weights/magnitude"][[at[24], at[16], at[8]]]).all()
    least, methods = cheapest(curves)
    assert np.isfinite(least).all()
    assert methods[at[200]] == "weights/magnitude"
    assert made.saving({"macs": 1.0})["a"][at[200]] == 0.0
    curve = {"a": Curve(tuple(least), tuple(made.saving({"nonzero": 1.0})["a"]))}
    assert solve(curve, [0.5])[0]["a"] == at[500], "half of the weights for less than half of the channels"
    curve = {"a": Curve(tuple(least), tuple(made.saving({"macs": 1.0})["a"]))}
    assert solve(curve, [0.5])[0]["a"] == at[16], "zeros save no arithmetic"


def test_observations_teach_it_what_cuts_do_together():
    curves = model(observed(60, np.random.default_rng(0))).damages(None)
    for (group, method), factor in TRUE.items():
        position = SPACE.choices[group].widths.index(8)
        told = curves[group][method][position] / alone(group, 8)
        assert abs(told - factor) < abs(1 - factor) or factor == 1.0
    assert cheapest(curves["b"])[1][-1] == "l2"
    assert cheapest(curves["a"])[1][-1] == "l1"


def test_savings_add_up():
    made = model(observed(30, np.random.default_rng(1)))
    position = {g: SPACE.choices[g].widths.index(16) for g in HARM}
    assert made.saved("macs", position) == pytest.approx(0.5, abs=0.02)
    assert sum(made.saving({"macs": 1.0})[g][position[g]] for g in HARM) == pytest.approx(0.5, abs=0.02)


@given(st.integers(1, 6), st.integers(0, 30), st.integers(0, 5))
def test_the_regression_is_the_textbooks(factors, observations, seed):
    """Mean against the normal equations; draws against mean and covariance."""
    rng = np.random.default_rng(seed)
    features, prior = rng.random((observations, factors)), 1 + rng.random(factors)
    noise, values = np.full(observations, 0.1), rng.random(observations)
    precision = np.diag((0.15 * prior) ** -2.0) + features.T @ features / 0.01
    mean = np.linalg.solve(precision, np.diag((0.15 * prior) ** -2.0) @ prior + features.T @ values / 0.01)
    assert Regression(features, values, prior, noise).mean == pytest.approx(mean)


def test_draws_spread_as_the_posterior_does():
    rng = np.random.default_rng(0)
    features = np.array([[1.0, 0.0, 1.0]])
    made = Regression(features, np.array([2.0]), np.ones(3), np.array([0.05]))
    draws = np.array([made.draw(rng) for _ in range(4000)])
    covariance = np.linalg.inv(np.eye(3) / 0.15**2 + features.T @ features / 0.05**2)
    assert draws.mean(0) == pytest.approx(made.mean, abs=0.01)
    assert np.cov(draws.T) == pytest.approx(covariance, abs=0.002)
