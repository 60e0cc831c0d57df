from __future__ import annotations

import pytest

from invented import narrowed, worker
from searches import run
from secateur.execution import Inline
from secateur.records import Edit, Precedent, Sensitivity
from secateur.search.replay import distance, profile_moved
from secateur.search.sensitivity import known_sensitivities


def profile(*damages):
    edit = Edit("channels", 4, "l1")
    return [Sensitivity(f"g{i}", edit, 0.5, damage, 1.0, 1.0, 1.0) for i, damage in enumerate(damages)]


def test_two_profiles_are_as_far_apart_as_the_share_that_lies_elsewhere():
    assert distance(profile(1, 1), profile(1, 1)) == 0
    assert distance(profile(1, 1), profile(5, 5)) == 0, "the whole network may have become more sensitive"
    assert distance(profile(1, 0), profile(0, 1)) == 1
    assert distance(profile(2, 1, 1), profile(1, 2, 1)) == pytest.approx(0.25)
    assert distance(profile(0, 0), profile(1, 1)) == 0


def test_profiles_are_compared_where_they_know_the_groups_that_the_choice_cuts(tmp_path):
    ledger = run(tmp_path, 30)
    measured, choice = known_sensitivities(ledger.study), narrowed({"a": 16}, "l1")

    def moved(*groups):
        known = tuple(point for point in measured if point.group in groups)
        return profile_moved(ledger, Inline(worker), Precedent("", "", "", choice, "", (), known, {}))

    assert moved("a", "b") == pytest.approx(0)
    assert moved("b", "c") is None
