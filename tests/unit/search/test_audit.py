from __future__ import annotations

import pytest

from secateur.records import Candidate, Measurement, Recovered
from secateur.search.audit import audit


def score(value):
    return {"accuracy": Measurement(value, "score", "measured")}


def finalist(before, after, on_search=None, test=None, failure=None):
    return Recovered(
        name="f", trial=1, candidate=Candidate({}), searched=score(before), measurements=score(after) if failure is None else {},
        folder="", epochs=1, seconds=1.0, failure=failure,
        on_search=None if on_search is None else score(on_search)["accuracy"],
        test=None if test is None else score(test)["accuracy"],
    )  # fmt: skip


def test_a_perfect_order_has_no_regret():
    found = audit([finalist(0.5, 0.8), finalist(0.6, 0.85), finalist(0.7, 0.9)])
    assert (found.pairs, found.kendall, found.regret) == (3, 1.0, 0.0)
    assert found.search_to_selection is None


def test_a_wrong_order_is_said():
    found = audit([finalist(0.7, 0.8), finalist(0.6, 0.85), finalist(0.5, 0.9)])
    assert (found.kendall, found.regret) == (-1.0, pytest.approx(0.1))


@pytest.mark.parametrize("finalists", [[], [finalist(0.5, 0.8)] * 2])
def test_too_few_say_nothing(finalists):
    found = audit(finalists)
    assert (found.pairs, found.kendall, found.regret) == (len(finalists), None, None)


def test_no_order_is_no_correlation():
    assert audit([finalist(0.5, 0.8)] * 3).kendall is None


def test_failures_do_not_count_and_shrinkage_is_a_mean():
    found = audit([finalist(0.5, 0.80, 0.84, 0.79), finalist(0.6, 0.90, 0.91), finalist(0.7, 0.0, failure="it broke")])
    assert found.pairs == 2
    assert found.search_to_selection == pytest.approx(-0.025)
    assert found.selection_to_test == pytest.approx(-0.01)
