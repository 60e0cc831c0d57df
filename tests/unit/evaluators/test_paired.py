"""Paired differences: known answers, and how often their intervals cover what is true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateur.errors import EvaluationFailed, WorkloadError
from secateur.evaluators.paired import WORST, change, difference, interval, least_excluded, tango
from secateur.evaluators.sample_scores import Scores, load_scores, save_scores, scores_of
from secateur.records import Workload
from secateur.workloads.functions import checked_score
from tiny import make_workload


def each(values):
    return Scores(len(values), per_sample=True, values=np.asarray(values, float))


def counted(won, lost, samples):
    """Two networks that disagree on so many samples."""
    left, right = np.ones(samples), np.ones(samples)
    left[:lost], right[lost : lost + won] = 0, 0
    return each(left), each(right)


@pytest.mark.parametrize(
    ("won", "lost", "samples", "confidence", "low", "high"),
    [
        (1, 0, 44, 0.90, -0.037, 0.096),  # Tango's own example, a cross-over trial
        (1, 7, 21, 0.95, -0.517, -0.026),  # Fagerland, Lydersen & Laake 2014, airway hyper-responsiveness
    ],
)
def test_tango_gives_the_published_intervals(won, lost, samples, confidence, low, high):
    found = tango(won, lost, samples, confidence)
    assert (round(found.low, 3), round(found.high, 3)) == (low, high)


@given(st.integers(2, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_an_interval_holds_its_value_and_turns_with_the_networks(counts):
    samples, won, lost = counts[0], min(counts[1:]), max(counts[1:]) - min(counts[1:])
    there, back = tango(won, lost, samples), tango(lost, won, samples)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.low, there.high) == (pytest.approx(-back.high, abs=1e-9), pytest.approx(-back.low, abs=1e-9))
    wider = tango(won, lost, samples, 0.99)
    assert wider.low <= there.low
    assert wider.high >= there.high


@pytest.mark.parametrize("samples", [250, 1000, 4000])
@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_intervals_of_paired_shares_cover_the_true_difference(samples, loss):
    """5 % of samples in dispute. 2,000 draws tell 94 % from 92 %; `benchmarks/paired.py` has the figures."""
    draws = np.random.default_rng(0).multinomial(samples, [(0.05 - loss) / 2, (0.05 + loss) / 2, 0.95], 2000)
    known = {}
    covered = bounded = 0
    for won, lost, _ in draws.tolist():
        if (won, lost) not in known:
            known[won, lost] = (tango(won, lost, samples), tango(won, lost, samples, 0.9).low)
        both, bound = known[won, lost]
        covered += both.low <= -loss <= both.high
        bounded += bound <= -loss
    assert covered / len(draws) >= 0.94
    assert bounded / len(draws) >= 0.935


def test_what_few_samples_cannot_exclude():
    """Of a model that agrees on all of 250 samples 1.1 points; of one that differs on 5 % of them twice that."""
    assert least_excluded(250, 0.0) == pytest.approx(1.645**2 / (250 + 1.645**2), rel=1e-3)
    assert 0.02 < least_excluded(250, 0.05) < 0.027
    assert least_excluded(4000, 0.05) < 0.007


def test_a_score_that_a_resample_does_not_have_is_left_out():
    """An area under a curve needs both classes."""

    def score(outputs, targets):
        if targets.sum() < 2:
            raise WorkloadError("The workload's score raised ValueError: one class only")
        return outputs.mean()

    found = scores_of(workload(score), torch.arange(6.0), torch.tensor([0, 0, 0, 0, 1, 1]))
    assert np.isnan(found.values).any()
    assert np.isfinite([interval(found).low, interval(found).high]).all()


def test_scores_of_0_and_1_are_paired_and_not_compared_as_if_unrelated():
    """96 % against 95.2 % on the same 250 samples, which differ on 4: known to 1.6 points, not to 3.6."""
    found = change(*counted(won=1, lost=3, samples=250))
    low, high = found.bounds
    assert found.value == pytest.approx(-0.008)
    assert high - low < 2 * 0.022
    assert low < found.details[WORST["maximize"]] < found.value < high


def test_real_scores_are_compared_by_their_differences():
    right = np.linspace(-9, 0, 100)
    found = difference(each(right + np.tile([-0.2, 0.1], 50)), each(right))
    assert (found.value, found.low, found.high) == tuple(pytest.approx(x, abs=1e-3) for x in (-0.05, -0.0799, -0.0201))


def workload(score):
    return Workload("w", lambda: None, (), None, lambda *_: None, score)


def test_a_score_for_all_samples_is_resampled_with_the_same_draws_for_every_network(tmp_path):
    """Two networks that differ by a constant differ by it in every resample: the interval has no width."""
    targets = torch.zeros(50)
    base = torch.randn(50, generator=torch.Generator().manual_seed(0))
    mine = workload(lambda outputs, _: outputs.mean())
    left, right = scores_of(mine, base - 0.25, targets), scores_of(mine, base, targets)
    found = difference(left, right)
    assert found.value == pytest.approx(-0.25)
    assert (found.low, found.high) == (pytest.approx(-0.25, abs=1e-6), pytest.approx(-0.25, abs=1e-6))
    save_scores(left, tmp_path / "scores.npz")
    kept = load_scores(tmp_path / "scores.npz")
    assert (kept.samples, kept.per_sample, kept.value) == (50, False, left.value)
    assert np.array_equal(kept.values, left.values)


class MeanOfClasses:
    """Recall, the mean over the classes: gathered, as libraries do it."""

    def __init__(self):
        self.found, self.there = torch.zeros(3), torch.zeros(3)

    def update(self, outputs, targets):
        right = outputs.argmax(1) == targets
        self.there += torch.bincount(targets, minlength=3)
        self.found += torch.bincount(targets[right], minlength=3)

    def compute(self):
        return (self.found / self.there).mean()


def test_an_object_that_gathers_is_a_score_of_the_set():
    draw = torch.Generator().manual_seed(0)
    outputs, targets = torch.rand(90, 3, generator=draw), torch.randint(0, 3, (90,), generator=draw)

    def recall(outputs, targets):
        gathered = MeanOfClasses()
        gathered.update(outputs, targets)
        return gathered.compute()

    gathering, plain = (replace(make_workload(), score=checked_score(score)) for score in (MeanOfClasses(), recall))
    first, again, expected = (scores_of(one, outputs, targets) for one in (gathering, gathering, plain))
    assert not first.per_sample
    assert first.values.tolist() == again.values.tolist() == expected.values.tolist()
    assert interval(first).low < first.value < interval(first).high


def test_a_metric_of_torchmetrics_is_a_score():
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    metric = torchmetrics.F1Score(task="multiclass", num_classes=3, average="macro")
    targets = torch.arange(60) % 3
    made = replace(make_workload(), score=checked_score(metric))
    assert scores_of(made, nn.functional.one_hot(targets, 3).float(), targets).value == pytest.approx(1.0)


def test_resamples_without_a_score_do_not_count():
    left = Scores(3, per_sample=False, values=np.array([0.5, np.nan, 0.4, 0.6]))
    found = difference(left, Scores(3, per_sample=False, values=np.zeros(4)))
    assert np.isfinite([found.low, found.high]).all()
    with pytest.raises(EvaluationFailed, match="not finite"):
        interval(Scores(3, per_sample=False, values=np.array([0.5, np.nan])))


def test_an_interval_of_few_resamples_is_wider_for_knowing_the_error_less_well():
    """Student's t of 3 degrees of freedom at 97.5 %: 3.182; of 199: 1.972."""
    draws = np.array([0.4, 0.5, 0.5, 0.6])
    few = interval(Scores(10**6, per_sample=False, values=np.array([0.5, *draws])))
    many = interval(Scores(10**6, per_sample=False, values=np.array([0.5, *np.tile(draws, 50)])))
    assert few.high - 0.5 == pytest.approx(3.182 * draws.std(ddof=1), rel=1e-3)
    assert many.high - 0.5 == pytest.approx(1.972 * np.tile(draws, 50).std(ddof=1), rel=1e-3)


def test_a_score_of_its_own_has_wilsons_interval():
    """81 of 263: 25.5 to 36.6 % (Newcombe 1998, table I)."""
    found = interval(each([1] * 81 + [0] * 182))
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_other_samples_and_too_few_are_refused():
    with pytest.raises(EvaluationFailed, match="same samples"):
        difference(each([1, 0]), each([1, 0, 1]))
    with pytest.raises(EvaluationFailed, match="too few"):
        difference(each([0.5]), each([0.25]))
