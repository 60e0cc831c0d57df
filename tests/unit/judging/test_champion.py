"""The gate of the registry: what the best finalist must keep beside the version that serves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from secateur.evaluators.sample_scores import Scores
from secateur.judging.champion import Margins, cost_check, score_check, size_ratio, slice_check
from secateur.records import SHARE, Comparison, Measurement

MARGINS = Margins(score=0.01, slices=0.05, costs=0.02, unit=SHARE)


def right(samples, *wrong, direction="maximize"):
    values = np.ones(samples)
    values[list(wrong)] = 0
    return Scores(samples, per_sample=True, values=values, direction=direction)


def pair(samples, lost, won):
    """A finalist that fails on `lost` samples that the version gets right, and gets `won` right that it fails on."""
    return right(samples, *range(lost)), right(samples, *range(lost, lost + won))


@pytest.mark.parametrize(
    ("samples", "lost", "won", "passes"),
    [
        (4000, 20, 20, True),  # no change, and a loss of .3 points at most
        (200, 2, 2, False),  # no change either, but so few samples exclude no loss of a point
        (4000, 80, 20, False),  # -1.5 points
        (200, 0, 40, True),
    ],
)
def test_a_loss_must_be_excluded(samples, lost, won, passes):
    check = score_check("top-1 accuracy", pair(samples, lost, won), MARGINS)
    assert check.passed == passes
    assert check.figure.value == pytest.approx((won - lost) / samples)
    assert (check.figure.details["won"], check.figure.details["lost"]) == (won, lost)
    assert check.figure.details["mcnemar_p"] == pytest.approx(binomtest(won, won + lost).pvalue)
    assert "1.0 points" in check.demand


def test_networks_that_differ_nowhere_have_a_p_of_one():
    assert score_check("s", (right(4000, 1), right(4000, 1)), MARGINS).figure.details["mcnemar_p"] == 1


def test_a_score_that_is_better_where_it_is_lower_is_turned():
    rng = np.random.default_rng(0)
    errors = rng.random(1000)
    worse = Scores(1000, True, errors + 0.5, "minimize")
    version = Scores(1000, True, errors, "minimize")
    assert not score_check("error", (worse, version), MARGINS).passed
    assert score_check("error", (version, worse), MARGINS).passed
    assert "mcnemar_p" not in score_check("error", (version, worse), MARGINS).figure.details
    assert not slice_check("night", (worse, version), MARGINS).passed


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (3, True), (12, False)])
def test_a_slice_refuses_where_its_loss_is_there_to_be_seen(lost, passes):
    """Of 40 samples 3 are 7.5 points, which may be chance; 12 are not."""
    check = slice_check("night", pair(40, lost, 0), MARGINS)
    assert check.passed == passes
    assert check.name == "slice 'night'"


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_slice_of_a_few_samples_shows_nothing_though_all_of_them_are_lost(samples):
    check = slice_check("night", pair(samples, samples, 0), MARGINS)
    assert check.passed
    assert check.figure.value == -1
    low, high = check.figure.bounds
    assert low == -1
    assert -0.05 < high < 1


@pytest.mark.parametrize(("value", "low", "passes"), [(1.0, 0.99, True), (1.04, 1.01, True), (1.05, 1.03, False)])
def test_a_cost_may_be_above_by_the_slack_and_by_noise(value, low, passes):
    ratio = Measurement(value, "of the version's", "measured", 8, (low, 2 * value - low))
    assert cost_check("latency", ratio, MARGINS).passed == passes


@pytest.mark.parametrize(("size", "passes"), [(100, True), (102, True), (103, False), (50, True)])
def test_a_size_has_no_noise(size, passes):
    check = cost_check("size", size_ratio(size, 100), MARGINS)
    assert check.passed == passes
    assert check.threshold == 1.02


def test_a_comparison_passes_by_all_checks_or_where_nothing_serves():
    good, bad = cost_check("size", size_ratio(1, 1), MARGINS), cost_check("size", size_ratio(2, 1), MARGINS)
    assert Comparison("f", "champion", "3", (good,)).passed
    assert not Comparison("f", "champion", "3", (good, bad)).passed
    assert Comparison("f", "champion", None).passed
    assert not Comparison("f", "champion", "3", failure="its inputs are others").passed
