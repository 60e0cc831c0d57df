from __future__ import annotations

import pytest
import torch

from secateur.evaluators.racing import Race, upper_bound
from secateur.records import Measurement

OBJECTIVES = {"accuracy": "maximize", "latency": "minimize", "size": "minimize"}
HURDLE = {"accuracy": 0.8, "latency": 0.5, "size": 1e5}


def costs(latency=(0.55, 0.65), size=2e5):
    low, high = latency
    return {
        "latency": Measurement((low + high) / 2, "of dense", "measured", interval=latency),
        "size": Measurement(size, "bytes", "computed"),
    }


def scores(right, seen=250):
    return torch.tensor([1.0] * right + [0.0] * (seen - right))


def race(share=0.25, objectives=OBJECTIVES):
    return Race(objectives, (HURDLE,), share)


@pytest.mark.parametrize(
    ("right", "changes", "lost"),
    [
        (150, {}, True),  # .6 of 250: four standard errors below .8
        (190, {}, False),  # .76 might still be .8
        (150, {"latency": (0.45, 0.65)}, False),  # it may be faster than the hurdle
        (150, {"size": 0.9e5}, False),  # it is smaller
        (250, {}, False),
        (0, {}, True),
    ],
)
def test_only_who_cannot_pass_is_given_up(right, changes, lost):
    reason = race().lost(scores(right), 1000, costs(**changes))
    assert (reason is not None) == lost
    if lost:
        assert reason.startswith("after 250 of 1000 samples the score stays below")
        assert "the front has 0.800 at no higher cost" in reason


def test_the_bound_holds_in_ninety_nine_of_a_hundred_cases():
    """Shares of 1,000 samples of which 250 are seen, against the bound from those 250."""
    generator = torch.Generator().manual_seed(0)
    for share in (0.02, 0.3, 0.75, 0.98):
        held = 0
        for _ in range(1500):
            everything = (torch.rand(1000, generator=generator) < share).float()
            held += float(everything.mean()) <= upper_bound(everything[:250], 1000) + 1e-9
        assert held / 1500 >= 0.98, share
    assert upper_bound(torch.ones(10), 10) == 1.0


@pytest.mark.parametrize(
    ("share", "objectives", "first"),
    [
        (0.25, OBJECTIVES, 25),
        (0.0, OBJECTIVES, 100),
        (0.25, {"latency": "minimize"}, 100),
        (0.25, {**OBJECTIVES, "fairness": "maximize"}, 100),
    ],
)
def test_the_question_is_asked_where_it_can_be_answered(share, objectives, first):
    assert race(share, objectives).first(100) == first


def test_a_score_for_all_samples_at_once_is_never_given_up():
    assert race().lost(torch.tensor(0.1), 1000, costs()) is None
