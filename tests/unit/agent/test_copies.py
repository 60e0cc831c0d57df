"""Which copies of the models are open, and in which order they are opened."""

from __future__ import annotations

import numpy as np

from secateur.agent import copies
from secateur.agent.copies import Copies
from secateur.agent.runtimes import Session

BATCHES = [[np.zeros(1)]]


class Opened(Session):
    """A session that knows whether it is still alive."""

    alive = 0

    def __init__(self):
        Opened.alive += 1
        self.runs = 0

    def __del__(self):
        Opened.alive -= 1

    def run(self, inputs):
        self.runs += 1
        return inputs[0]


def opening(log):
    def open_side(side):
        log.append(side[0])
        return Opened()

    return open_side


def test_sides_take_turns_in_being_opened_first():
    log = []
    made = Copies(opening(log), 1000, BATCHES)
    for copy in range(4):
        made(copy)
    assert "".join(log) == "crrccrrc"
    made(2)
    assert len(log) == 8, "what is open is not opened again"


def test_what_does_not_fit_is_opened_one_after_the_other(monkeypatch):
    monkeypatch.setattr(copies, "OPEN_BYTES", 2500)
    log, most = [], []
    made = Copies(opening(log), 1000, BATCHES)
    for copy in (0, 1, 2, 3, 0):
        made(copy)
        most.append(Opened.alive)
    assert len(log) == 10, "each copy is a new one"
    assert max(most) == 4


def test_a_model_that_is_larger_than_all_that_fits_is_open_alone():
    made = Copies(opening([]), 10**12, BATCHES)
    for copy in range(3):
        made(copy)
        assert Opened.alive == 2


def test_the_candidate_alone_does_not_open_the_reference():
    log = []
    made = Copies(opening(log), 1000, BATCHES)
    assert made.candidate.runs == 1, "warmed up"
    assert log == ["c"]
    made(0)
    assert log == ["c", "r"]
    assert made.candidate is made.candidate


def test_a_run_over_all_batches_takes_the_mean_of_their_times():
    class Timed(Opened):
        def block(self, batches, first, count):
            return [float(batch[0][0]) for batch in (batches * 2)[first : first + count]]

    made = Copies(lambda _: Timed(), 1000, [[np.array([1.0])], [np.array([3.0])]], whole=True)
    candidate, _ = made(0)
    assert candidate(5, 3) == [2.0, 2.0, 2.0]
