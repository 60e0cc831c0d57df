from __future__ import annotations

import numpy as np
import pytest

from secateur.records import Candidate, Evaluation, Measurement, Recovered, Trial, Verdict
from secateur.search.audit import arm_results, audit, rank_correlation


def score(value):
    return {"accuracy": Measurement(value, "score", "measured")}


def finalist(before, after, on_search=None, failure=None, name="f"):
    return Recovered(
        name=name, trial=1, candidate=Candidate({}), searched=score(before), measurements=score(after) if failure is None else {},
        folder="", epochs=1, seconds=1.0, failure=failure,
        on_search=None if on_search is None else score(on_search)["accuracy"],
    )  # fmt: skip


def audited(finalists, **tests):
    """tests: name of a finalist → its score on test data; only what passed has one."""
    scored = {name: score(value)["accuracy"] for name, value in tests.items()}
    return audit(finalists, {f.name: Verdict(f.name, True, (), None, scored.get(f.name)) for f in finalists})


def test_a_perfect_order_has_no_regret():
    found = audited([finalist(0.5, 0.8), finalist(0.6, 0.85), finalist(0.7, 0.9)])
    assert (found.pairs, found.regret) == (3, 0.0)
    assert found.search_to_selection is None


def test_a_wrong_order_is_regretted():
    assert audited([finalist(0.7, 0.8), finalist(0.6, 0.85), finalist(0.5, 0.9)]).regret == pytest.approx(0.1)


def test_a_rank_correlation_is_given_from_eight_pairs_on_and_with_its_interval():
    """Four finalists in a perfect order are no evidence: that happens by chance in one of 24 cases."""
    rising = [finalist(0.5 + 0.01 * i, 0.8 + 0.01 * i) for i in range(8)]
    assert audited(rising[:7]).kendall is None
    found = audited(rising)
    assert found.kendall == pytest.approx(1.0)
    low, high = found.kendall_interval
    assert 0.6 < low < 0.9
    assert high == pytest.approx(1.0)


def test_intervals_of_rank_correlations_cover_the_true_one():
    """Normal pairs: tau = 2/pi asin(rho)."""
    rng, rho = np.random.default_rng(0), 0.7
    true = 2 / np.pi * np.arcsin(rho)
    for count in (8, 36):
        x = rng.standard_normal((600, count))
        y = rho * x + (1 - rho**2) ** 0.5 * rng.standard_normal((600, count))
        bounds = [rank_correlation(a, b).bounds for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        assert np.mean([low <= true <= high for low, high in bounds]) > 0.92


def trial(number, arm, accuracy, macs):
    figures = {"accuracy": Measurement(accuracy, "score", "measured"), "macs": Measurement(macs, "MACs", "computed")}
    return Trial(number, arm, "", Evaluation(Candidate({}), str(number), figures), None)


def test_arms_are_compared_at_equal_numbers_of_networks():
    """The same kind of network in both arms: forty have more hypervolume than six, but six of the forty as much as the other six."""
    inside = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        points = [(0.9 - rng.uniform(0, 0.2), rng.uniform(0.3, 1.0)) for _ in range(46)]
        trials = [trial(i, "sampler" if i < 40 else "global", *point) for i, point in enumerate(points)]
        dense = trial(99, "dense", 0.9, 1.0).evaluation.measurements
        search, uniform, _, chosen = arm_results(trials, {"accuracy": "maximize", "macs": "minimize"}, dense, ())
        low, high = chosen.at_equal.bounds
        assert low < chosen.at_equal.value < high <= search.hypervolume
        assert uniform.at_equal is None, "it has no networks"
        inside += low <= chosen.hypervolume <= high
    assert inside >= 8


@pytest.mark.parametrize("finalists", [[], [finalist(0.5, 0.8)] * 2])
def test_too_few_say_nothing(finalists):
    found = audited(finalists)
    assert (found.pairs, found.kendall, found.regret) == (len(finalists), None, None)


def test_no_order_is_no_correlation():
    assert audited([finalist(0.5, 0.8)] * 9).kendall is None


def test_failures_do_not_count_and_shrinkage_is_a_mean():
    found = audited(
        [finalist(0.5, 0.80, 0.84, name="tested"), finalist(0.6, 0.90, 0.91), finalist(0.7, 0.0, failure="it broke")],
        tested=0.79,
    )
    assert found.pairs == 2
    assert found.search_to_selection == pytest.approx(-0.025)
    assert found.selection_to_test == pytest.approx(-0.01)
