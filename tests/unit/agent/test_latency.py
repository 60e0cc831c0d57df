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


def measured(clock, candidate=0.5e-3, reference=1e-3, usual=float("inf"), **protocol):
    protocol = Protocol(**{"least_rounds": 8, "most_rounds": 30, **protocol})
    return compare(clock.runs("c", candidate), clock.runs("r", reference), protocol, usual, clock)


def test_a_quiet_machine_needs_the_least_rounds():
    found = measured(Clock())
    assert found.rounds == 8
    assert found.ratio == pytest.approx(0.5, rel=0.005)
    assert found.interval[0] <= found.ratio <= found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.005 * found.ratio
    assert not found.disturbed
    assert found.usual == pytest.approx(1e-3, rel=0.01)


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
    found = measured(clock, most_rounds=12, loud=10.0)
    assert found.rounds == 12
    assert found.interval[1] - found.interval[0] > 0.02 * found.ratio, "what is wide is reported as wide"


class Neighbour(Clock):
    """Until `leaves`, somebody uses the same caches: the reference takes 12 % longer, the candidate 19 %."""

    def __init__(self, leaves):
        super().__init__()
        self.leaves = leaves

    def runs(self, name, seconds):
        quiet, loud = super().runs(name, seconds), super().runs(name, seconds * (1.12 if name == "r" else 1.19))
        return lambda first, count: (loud if self.now < self.leaves else quiet)(first, count)


def test_a_neighbour_is_waited_for_by_who_knows_the_reference():
    biased = measured(Neighbour(leaves=1.0))
    assert biased.ratio == pytest.approx(0.5 * 1.19 / 1.12, rel=0.005), "nothing says that it is loud"
    found = measured(Neighbour(leaves=1.0), usual=1e-3)
    assert found.ratio == pytest.approx(0.5, rel=0.003)
    assert not found.disturbed
    assert found.rounds == 8


def test_a_neighbour_that_leaves_during_the_rounds_is_noticed_by_anybody():
    found = measured(Neighbour(leaves=0.06))  # four rounds of 16 ms or so
    assert found.ratio == pytest.approx(0.5, rel=0.003)


def test_patience_ends_and_the_figure_says_so():
    clock = Neighbour(leaves=float("inf"))
    found = measured(clock, usual=1e-3, patience=2.0)
    assert 2.0 < clock.now < 2.1
    assert found.disturbed
    assert found.ratio == pytest.approx(0.5 * 1.19 / 1.12, rel=0.005)


def test_a_slow_device_gets_its_rounds_however_short_the_patience():
    clock = Neighbour(leaves=100.0)
    found = measured(clock, candidate=0.5, reference=1.0, usual=1.0, patience=1.0)
    assert not found.disturbed, "seven loud rounds are no reason to give up"


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


def test_the_interval_knows_that_rounds_of_one_copy_resemble_each_other():
    """Copies differ by 0.3 %, rounds of one hardly: sixty of them are no sixty observations."""
    rng, copies = np.random.default_rng(2), np.arange(60) % 4
    covered = {"rounds": 0, "copies": 0}
    for _ in range(60):
        values = (1 + rng.normal(0, 0.003, 4))[copies] + rng.normal(0, 0.0005, 60)
        for name, (low, high) in {"rounds": median_interval(values), "copies": median_interval(values, copies)}.items():
            covered[name] += low <= 1.0 <= high
    assert covered["copies"] >= 45
    assert covered["rounds"] < covered["copies"]
