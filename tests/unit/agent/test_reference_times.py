"""What a device remembers of its references."""

from __future__ import annotations

import json

import pytest

from secateur.agent import reference_times
from secateur.agent.reference_times import KEPT, PAUSE, ReferenceTimes


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets."""
    times = [1000.0]
    monkeypatch.setattr(reference_times.time, "time", lambda: times[0])
    return times


def test_the_lowest_is_remembered(tmp_path):
    assert ReferenceTimes(tmp_path).seconds("a") == float("inf")
    for seconds in (3.0, 2.0, 4.0):
        ReferenceTimes(tmp_path).note("a", seconds, disturbed=False)
    assert ReferenceTimes(tmp_path).seconds("a") == 2.0
    assert ReferenceTimes(tmp_path).seconds("b") == float("inf")


def test_a_loud_hour_raises_what_is_known_by_little(tmp_path, now):
    ReferenceTimes(tmp_path).note("a", 1.0, disturbed=False)
    for _ in range(600):
        now[0] += 6.0
        ReferenceTimes(tmp_path).note("a", 1.5, disturbed=True)
    assert 1.05 < ReferenceTimes(tmp_path).seconds("a") < 1.15


def test_a_device_that_is_slower_for_good_is_believed_in_the_end(tmp_path, now):
    ReferenceTimes(tmp_path).note("a", 1.0, disturbed=False)
    for _ in range(30):
        now[0] += 2 * PAUSE
        ReferenceTimes(tmp_path).note("a", 1.2, disturbed=True)
    assert ReferenceTimes(tmp_path).seconds("a") == 1.2
    ReferenceTimes(tmp_path).note("a", 1.0, disturbed=False)
    assert ReferenceTimes(tmp_path).seconds("a") == 1.0


def test_a_clock_that_was_set_back_counts_as_a_pause(tmp_path, now):
    ReferenceTimes(tmp_path).note("a", 1.0, disturbed=True)
    now[0] = 10.0
    ReferenceTimes(tmp_path).note("a", 2.0, disturbed=True)
    assert ReferenceTimes(tmp_path).seconds("a") == 1.01


def test_the_oldest_are_forgotten(tmp_path):
    for number in range(KEPT + 5):
        ReferenceTimes(tmp_path).note(str(number), 1.0, disturbed=False)
        ReferenceTimes(tmp_path).note("0", 1.0, disturbed=False)
    assert ReferenceTimes(tmp_path).seconds("0") == 1.0, "used: not one of the oldest"
    assert ReferenceTimes(tmp_path).seconds("1") == float("inf")
    assert len(json.loads((tmp_path / "reference_times.json").read_text())["seconds"]) == KEPT


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"seconds": [], "increased": 0}', '{"seconds": {"a": "x"}, "increased": 0}']
)
def test_a_damaged_file_is_as_good_as_none(tmp_path, text):
    (tmp_path / "reference_times.json").write_text(text)
    assert ReferenceTimes(tmp_path).seconds("a") == float("inf")
    ReferenceTimes(tmp_path).note("a", 1.0, disturbed=False)
    assert ReferenceTimes(tmp_path).seconds("a") == 1.0
