from __future__ import annotations

import numpy as np
import pytest

from secateur.records import Candidate, Evaluation, Goal, Measurement
from secateur.search.forecast import LEAST_FITTED, Forecast


def measured(**figures):
    return {name: Measurement(value, "", "computed") for name, value in figures.items()}


def at_most(latency):
    return (Goal("latency", "at_most", latency, latency, f"latency at most {latency}"),)


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
    rng, limits = np.random.default_rng(0), at_most(0.5)
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
    limits = at_most(0.45)
    assert (learned(noise).rejects(limits, {"macs": 2e7, "parameters": 2.5e4}) is not None) == rejected


def test_what_the_costs_of_a_plan_do_not_tell_is_not_foreseen_however_much_was_measured():
    """A download depends on zeros, which neither MACs nor parameters count."""
    forecast = Forecast()
    for i in range(20):
        figures = measured(macs=4e7 - 1e6 * i, parameters=1e5 - 1e3 * i, download=1e5 - 1e3 * i)
        forecast.learn(Evaluation(Candidate({}), str(i), figures))
    exact = {"macs": 4e7, "parameters": 1e5}
    limit = Goal("download", "at_most", 1.0, 1.0, "download at most 1")
    assert forecast.of("download", exact) is None
    assert forecast.rejects((limit,), exact) is None
