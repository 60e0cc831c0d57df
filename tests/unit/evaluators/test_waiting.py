"""What a run may spend on waiting for its device to become quiet."""

from __future__ import annotations

import pytest

from secateur.evaluators.waiting import WaitingBudget


def test_a_run_waits_for_a_share_of_its_own_time_however_many_measurements_ask():
    now = [0.0]
    budget = WaitingBudget(0.25, lambda: now[0])
    assert budget.allowance(1.0) == 0.0, "a run that has done nothing has earned nothing"
    own = waited = 0.0
    for _ in range(64):  # none of them ever finds the device quiet
        now[0] += 0.5
        own += 0.5
        lent = budget.allowance(10.0)
        now[0] += lent
        waited += lent
        budget.spend(lent)
    assert waited == pytest.approx(0.25 * own)
    assert budget.spent == waited


def test_one_measurement_gets_no_more_than_its_most_and_an_overdrawn_budget_lends_nothing():
    now = [100.0]
    budget = WaitingBudget(0.25, lambda: now[0])
    now[0] += 100.0
    assert budget.allowance(1.0) == 1.0
    budget.spend(30.0)
    assert budget.allowance(10.0) == 0.0
    now[0] += 60.0
    assert budget.allowance(10.0) == pytest.approx(0.25 * 130 - 30)
