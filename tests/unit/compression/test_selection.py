from __future__ import annotations

import torch

from secateur.compression.selection import channels_to_remove, resolve
from secateur.records import Candidate, Cut, Group, Member

GROUP = Group("g", "Conv2d", (Member("g", "out", "convolution", (0, 1, 2, 3), (0, 1, 2, 3)),), 4, (0, 1, 3), 10, 10)
SCORES = {"g": {"a": torch.tensor([2.0, 1.0, 0.0, 1.0]), "b": torch.tensor([0.0, 9.0, 9.0, 9.0])}}


def test_the_lowest_go_first_and_ties_go_in_channel_order():
    assert channels_to_remove(GROUP, Cut("a", 3), SCORES) == (1,)
    assert channels_to_remove(GROUP, Cut("a", 2), SCORES) == (1, 3)
    assert channels_to_remove(GROUP, Cut("b", 3), SCORES) == (0,)


def test_pinned_channels_stay_even_where_their_score_is_lowest():
    assert 2 not in channels_to_remove(GROUP, Cut("a", 1), SCORES)


def test_nothing_is_removed_where_everything_is_kept():
    assert channels_to_remove(GROUP, Cut(None, 4), SCORES) == ()
    assert resolve(Candidate({"g": Cut(None, 4)}), [GROUP], SCORES).roots == {}


def test_equal_cuts_have_one_key_whatever_the_method():
    one = resolve(Candidate({"g": Cut("a", 1)}), [GROUP], SCORES)
    other = resolve(Candidate({"g": Cut("b", 1)}), [GROUP], SCORES)
    assert one.roots == other.roots
    assert one.key == other.key
    assert resolve(Candidate({"g": Cut("a", 2)}), [GROUP], SCORES).key != one.key


def test_a_candidate_is_known_by_methods_and_widths():
    assert (
        Candidate({"a": Cut("l1", 3), "b": Cut(None, 4)}).key == Candidate({"b": Cut(None, 4), "a": Cut("l1", 3)}).key
    )
    assert Candidate({"a": Cut("l1", 3)}).key != Candidate({"a": Cut("l2", 3)}).key
