from __future__ import annotations

import pytest

from secateur.records import Edit, Sensitivity
from secateur.search.replay import distance


def profile(*damages):
    edit = Edit("channels", 4, "l1")
    return [Sensitivity(f"g{i}", edit, 0.5, damage, 1.0, 1.0, 1.0) for i, damage in enumerate(damages)]


def test_two_profiles_are_as_far_apart_as_the_share_that_lies_elsewhere():
    assert distance(profile(1, 1), profile(1, 1)) == 0
    assert distance(profile(1, 1), profile(5, 5)) == 0, "the whole network may have become more sensitive"
    assert distance(profile(1, 0), profile(0, 1)) == 1
    assert distance(profile(2, 1, 1), profile(1, 2, 1)) == pytest.approx(0.25)
    assert distance(profile(0, 0), profile(1, 1)) == 0
