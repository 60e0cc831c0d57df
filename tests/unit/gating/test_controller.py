from __future__ import annotations

import math

import numpy as np
import pytest

from secateur.gating import Controller


def spent(controller: Controller | None, logits: np.ndarray) -> np.ndarray:
    """The costs of a stream: a frame costs 10, and 90 more where its logit is above the threshold."""
    costs, threshold = [], 0.0
    for logit in logits:
        costs.append(100.0 if logit > threshold else 10.0)
        if controller is not None:
            threshold = controller.observe(costs[-1])
    return np.array(costs)


def test_a_budget_is_held_over_easy_and_hard_scenes():
    """Without it the hard half costs 100, and the easy one 10."""
    draw = np.random.default_rng(0)
    logits = np.concatenate([draw.normal(mean, 1, 1500) for mean in (-4, 4, -4, 4)])
    assert spent(None, logits).mean() > 50
    costs = spent(Controller(40.0), logits)
    assert costs[500:1500].mean() == pytest.approx(40, abs=1), "gates open where there is room"
    assert costs[2000:3000].mean() == pytest.approx(40, abs=1), "and close where there is none"
    assert costs.mean() == pytest.approx(40, abs=1)


def test_a_frame_that_something_else_delayed_counts_for_ten():
    controller = Controller(1.0, gain=0.1)
    assert controller.observe(1000.0) == pytest.approx(0.9)
    assert controller.observe(0.0) == pytest.approx(0.8)


def test_a_budget_out_of_reach_does_not_wind_it_up():
    controller = Controller(1.0, most=3.0)
    for _ in range(1000):
        controller.observe(1.9)
    assert controller.threshold == 3.0
    for _ in range(200):
        controller.observe(0.5)
    assert controller.threshold < 0


@pytest.mark.parametrize("wrong", [{"budget": 0.0}, {"budget": 1.0, "gain": -1.0}, {"budget": 1.0, "most": 0.0}])
def test_what_is_not_positive_is_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        Controller(**wrong)


def test_a_cost_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="cost"):
        Controller(1.0).observe(math.nan)
