"""The dense model against itself, and what follows for the other intervals of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from secateur.evaluators.self_comparison import compared, missing, widened
from secateur.records import Measurement


def latency(value, half, provenance="measured", copies=8.0):
    interval = value * math.exp(-half), value * math.exp(half)
    return {"latency": Measurement(value, "of dense", provenance, 16, interval, "here", {"copies": copies})}


def test_a_run_whose_self_comparison_holds_1_keeps_its_intervals():
    comparison = compared([latency(1.004, 0.005), latency(0.999, 0.005)])
    assert comparison.value == 1.004
    assert missing(comparison) == 0.0
    figures = latency(0.5, 0.01)
    assert widened(figures, missing(comparison)) is figures


def test_what_the_interval_lacks_widens_every_other():
    comparison = compared([latency(1.064, 0.02)])
    by = missing(comparison)
    assert by == pytest.approx(math.log(1.064) - 0.02)
    (low, high) = widened(latency(0.5, 0.01), by)["latency"].bounds
    assert math.log(high / low) == pytest.approx(2 * (0.01 + by))
    dense = widened(latency(1.064, 0.02), by)["latency"].bounds
    assert dense[0] == pytest.approx(1.0), "with that it holds 1 as well"
    assert missing(compared([latency(1 / 1.064, 0.02)])) == pytest.approx(by), "too fast is as wrong as too slow"


def test_widening_twice_is_widening_once_and_by_the_larger():
    once = widened(latency(0.5, 0.01), 0.02)
    assert widened(once, 0.02) == once
    assert widened(once, 0.01) == once
    low, high = widened(once, 0.03)["latency"].bounds
    assert math.log(high / low) == pytest.approx(2 * (0.01 + 0.03))


def test_other_figures_are_left_alone():
    for figures in ({}, latency(0.5, 0.01, "predicted"), {"latency": Measurement(0.5, "of dense", "measured")}):
        assert widened(figures, 0.1) is figures
    assert compared([{}, latency(1.0, 0.01, "emulated")]) is None
    assert missing(None) == 0.0


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_runs_that_look_often_are_not_called_noisy_more_often(looks):
    """Normal copies: 5 % of runs may miss 1, whether they look once or three times."""
    rng, missed, runs = np.random.default_rng(looks), 0, 1500
    for _ in range(runs):
        found = []
        for _ in range(looks):
            each = 0.003 * rng.standard_normal(8)
            found.append(latency(math.exp(each.mean()), 2.365 * each.std(ddof=1) / 8**0.5))
        missed += missing(compared(found)) > 0
    assert 0.03 <= missed / runs <= 0.07
