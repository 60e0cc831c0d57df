"""The protocol on a fake clock: time passes only where a run takes some."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.agent.latency import Protocol, compare, median_interval


class Clock:
    """A machine on which runs take what `cost` says, and which other programs disturb."""

    def __init__(self, seed=0, busy=0.0, drift=0.0):
        self.now, self.rng, self.busy, self.drift, self.calls = 0.0, np.random.default_rng(seed), busy, drift, []

    def __call__(self):
        return self.now

    def runs(self, name, seconds):
        def run(number):
            self.calls.append((name, number))
            slow = 1 + self.drift * len(self.calls)
            if self.rng.random() < self.busy:
                slow *= 1 + self.rng.exponential(3.0)
            before = self.now
            self.now += seconds * slow * (1 + 0.002 * abs(self.rng.standard_normal()))
            return self.now - before

        return lambda first, count: [run(number) for number in range(first, first + count)]


def measured(clock, candidate=0.5e-3, reference=1e-3, **protocol):
    return compare(clock.runs("c", candidate), clock.runs("r", reference), Protocol(**protocol))


def test_a_quiet_machine_needs_the_least_rounds():
    found = measured(Clock())
    assert found.rounds == 8
    assert found.ratio == pytest.approx(0.5, rel=0.005)
    assert found.interval[0] <= found.ratio <= found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.02 * found.ratio


@pytest.mark.parametrize("seed", range(5))
def test_disturbances_are_forgotten_where_a_mean_is_not(seed):
    clock = Clock(seed, busy=0.3)
    found = measured(clock)
    assert found.ratio == pytest.approx(0.5, rel=0.01)
    mean = found.runs.mean() / found.reference_runs.mean()
    assert abs(mean - 0.5) > abs(found.ratio - 0.5)


def test_a_machine_that_slows_down_slows_both():
    found = measured(Clock(drift=0.01))
    assert found.ratio == pytest.approx(0.5, rel=0.05)
    assert found.runs[-1].mean() > 2 * found.runs[0].mean(), "the slowing was there"
    assert found.drift > 0.5, "and it is reported"


def test_a_machine_that_keeps_its_pace_does_not_drift():
    assert abs(measured(Clock(busy=0.3)).drift) < 0.02


def test_noise_asks_for_more_rounds_and_there_is_an_end():
    clock = Clock(busy=1.0)
    found = measured(clock, most_rounds=12)
    assert found.rounds == 12
    assert found.interval[1] - found.interval[0] > 0.02 * found.ratio, "what is wide is reported as wide"


def test_blocks_alternate_and_change_places():
    clock = Clock()
    measured(clock, block=3)
    names = "".join(name for name, _ in clock.calls)
    assert names.startswith("cr" + "rrrccc" + "cccrrr" + "rrrccc")


def test_both_sides_run_the_same_numbers():
    clock = Clock()
    measured(clock, block=4)
    numbers = {name: [n for called, n in clock.calls[2:] if called == name] for name in "cr"}
    assert numbers["c"] == numbers["r"] == list(range(32))


def test_the_interval_covers_the_median_of_what_was_drawn():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = median_interval(rng.normal(1.0, 0.1, 21), resamples=200)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 1.0
    assert median_interval(np.array([0.5] * 9)) == (0.5, 0.5)
