"""What a device remembers of its references."""

from __future__ import annotations

import json

import pytest

from secateur.agent import usual
from secateur.agent.usual import KEPT, PAUSE, Usual


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets."""
    times = [1000.0]
    monkeypatch.setattr(usual.time, "time", lambda: times[0])
    return times


def test_the_lowest_is_remembered(tmp_path):
    assert Usual(tmp_path).seconds("a") == float("inf")
    for seconds in (3.0, 2.0, 4.0):
        Usual(tmp_path).note("a", seconds, in_vain=False)
    assert Usual(tmp_path).seconds("a") == 2.0
    assert Usual(tmp_path).seconds("b") == float("inf")


def test_who_waited_in_vain_does_not_wait_again_for_a_while(tmp_path, now):
    Usual(tmp_path).note("a", 1.0, in_vain=True)
    assert not Usual(tmp_path).worth_waiting
    now[0] += PAUSE / 2
    Usual(tmp_path).note("a", 1.0, in_vain=True)
    now[0] += PAUSE / 2
    assert Usual(tmp_path).worth_waiting, "the pause is not prolonged by those who do not wait"


def test_a_device_that_is_slower_for_good_is_believed_in_the_end(tmp_path, now):
    Usual(tmp_path).note("a", 1.0, in_vain=False)
    for _ in range(30):
        now[0] += 2 * PAUSE
        Usual(tmp_path).note("a", 1.2, in_vain=True)
    assert Usual(tmp_path).seconds("a") == 1.2
    Usual(tmp_path).note("a", 1.0, in_vain=False)
    assert Usual(tmp_path).seconds("a") == 1.0


def test_a_clock_that_was_set_back_does_not_end_the_waiting_for_good(tmp_path, now):
    Usual(tmp_path).note("a", 1.0, in_vain=True)
    now[0] = 10.0
    assert Usual(tmp_path).worth_waiting


def test_the_oldest_are_forgotten(tmp_path):
    for number in range(KEPT + 5):
        Usual(tmp_path).note(str(number), 1.0, in_vain=False)
        Usual(tmp_path).note("0", 1.0, in_vain=False)
    assert Usual(tmp_path).seconds("0") == 1.0, "used: not one of the oldest"
    assert Usual(tmp_path).seconds("1") == float("inf")
    assert len(json.loads((tmp_path / "usual.json").read_text())["seconds"]) == KEPT


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"seconds": [], "given_up": 0}', '{"seconds": {"a": "x"}, "given_up": 0}']
)
def test_a_damaged_file_is_as_good_as_none(tmp_path, text):
    (tmp_path / "usual.json").write_text(text)
    assert Usual(tmp_path).seconds("a") == float("inf")
    Usual(tmp_path).note("a", 1.0, in_vain=False)
    assert Usual(tmp_path).seconds("a") == 1.0
