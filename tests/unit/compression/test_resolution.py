from __future__ import annotations

import pytest
import torch

from invented import narrowed
from secateur.compression.resolution import resolve
from secateur.records import Candidate, Edit, Group, Member, Plan, Remove

GROUP = Group("g", "Conv2d", (Member("g", "out", "convolution", (0, 1, 2, 3), (0, 1, 2, 3)),), 4, (0, 1, 3), 10, 10)
SCORES = {"g": {"a": torch.tensor([2.0, 1.0, 0.0, 1.0]), "b": torch.tensor([0.0, 9.0, 9.0, 9.0])}}


def resolved(level, by):
    return resolve(narrowed({"g": level}, by), [GROUP], SCORES)


@pytest.mark.parametrize(("level", "by", "gone"), [(3, "a", (1,)), (2, "a", (1, 3)), (3, "b", (0,))])
def test_the_lowest_go_first_and_ties_go_in_channel_order(level, by, gone):
    assert resolved(level, by) == Plan((Remove("g", "out", gone),))


def test_pinned_channels_stay_even_where_their_score_is_lowest():
    assert resolved(1, "a").removed["out"] == {"g": (0, 1, 3)}


def test_a_group_without_edits_stays_whole():
    assert resolve(Candidate({}), [GROUP], SCORES) == Plan()


def test_a_group_with_two_edits_of_a_stage_is_refused():
    twice = Candidate({"g": (Edit("channels", 3, "a"), Edit("channels", 2, "b"))})
    with pytest.raises(
        ValueError, match=r"^'g' has 2 edits of the stage 'structure' \(channels 3 by a, channels 2 by b\)"
    ):
        resolve(twice, [GROUP], SCORES)


def test_a_network_is_known_by_all_that_is_done_to_it():
    """Whatever the criterion, and in whatever order."""
    assert resolved(1, "a").key == resolved(1, "b").key != resolved(2, "a").key
    steps = (Remove("x", "out", (1,)), Remove("x", "in", (1,)))
    assert Plan(steps).key == Plan(steps[::-1]).key
    assert len({Plan(chosen).key for chosen in (steps, steps[:1], steps[1:], ())}) == 4


def test_a_candidate_is_known_by_its_edits():
    assert narrowed({"a": 3, "b": 4}).key == narrowed({"b": 4, "a": 3}).key
    assert len({narrowed({"a": level}, by).key for level in (3, 4) for by in ("l1", "l2")}) == 4
    assert Candidate.of({"a": narrowed({"a": 3}).edits["a"], "b": ()}) == narrowed({"a": 3})
