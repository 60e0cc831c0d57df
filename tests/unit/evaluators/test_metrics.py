from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import zstandard
from torch import nn

from conftest import make_workload
from secateur.errors import WorkloadError
from secateur.evaluators.metrics import (
    METRICS,
    Context,
    Metric,
    accuracy,
    download,
    measure_all,
    nonzero,
    parameters,
    size,
)
from secateur.evaluators.model_files import Network
from secateur.evaluators.paired import interval
from secateur.evaluators.sample_scores import RESAMPLES, scores_of
from secateur.workloads.loading import guarded_workload


def context(score, outputs, targets):
    workload = guarded_workload(replace(make_workload(), score=score))
    return Context(workload, None, outputs, outputs, targets, "host", None)


def area(outputs, targets):
    """Like scikit-learn's roc_auc_score: a plain float, an error where there is one class."""
    positive = targets == 1
    if positive.all() or not positive.any():
        raise ValueError("Only one class present in y_true")
    higher = outputs[positive][:, None] > outputs[~positive][None]
    return np.float64(higher.float().mean())


def test_resamples_of_one_class_are_left_out_of_the_interval():
    targets = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0])  # one resample in ten holds no 1
    some = context(area, torch.tensor([3.0, 1.0, 0.0, 1.5, 0.2, 0.4, 0.6, 0.8]), targets)
    found = accuracy(some)
    assert found.value == pytest.approx(11 / 12)
    own = interval(some.scores)
    assert 0.5 < own.low < 11 / 12 < 1 < own.high
    assert found.interval == (own.low, 1.0), "that of the gate, and no share is above 1"
    other = replace(some, workload=replace(some.workload, score_unit="mAP"))
    assert accuracy(other).interval == (own.low, own.high)


def test_resamples_of_one_class_are_kept_as_unknown_for_paired_comparisons():
    targets = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0])
    outputs = torch.tensor([3.0, 1.0, 0.0, 1.5, 0.2, 0.4, 0.6, 0.8])
    scores = scores_of(context(area, outputs, targets).workload, outputs, targets)
    assert scores.value == pytest.approx(11 / 12)
    assert 0 < np.isnan(scores.values).mean() < 0.2
    assert interval(scores).low < 11 / 12


def test_no_interval_where_most_resamples_have_no_score():
    def fussy(outputs, targets):
        if len(targets.unique()) < 4:
            raise ValueError("all four are needed")
        return torch.tensor(0.5)

    assert accuracy(context(fussy, torch.rand(4), torch.arange(4))).interval is None


def test_what_a_metric_of_the_project_raises_or_returns_is_one_line():
    some = context(area, torch.rand(4), torch.tensor([0, 1, 0, 1]))
    own = {**METRICS, "fails": Metric(lambda _: 1 / 0, "maximize", ""), "number": Metric(lambda _: 0.5, "maximize", "")}
    with pytest.raises(
        WorkloadError, match=r"The metric 'fails' raised ZeroDivisionError: .*\(at .*test_metrics.py:\d+\)"
    ):
        measure_all(some, ["fails"], own)
    with pytest.raises(WorkloadError, match="The metric 'number' gives a float; a Measurement is needed"):
        measure_all(some, ["number"], own)


def test_a_metric_that_the_registry_has_taken_in_is_called_as_the_users_code_too(monkeypatch):
    """A plug-in's, or one that a workload's module has put into METRICS."""
    monkeypatch.setitem(METRICS, "fails", Metric(lambda _: 1 / 0, "maximize", ""))
    with pytest.raises(WorkloadError, match="The metric 'fails' raised ZeroDivisionError"):
        measure_all(context(area, torch.rand(4), torch.tensor([0, 1, 0, 1])), ["fails"], METRICS)


def test_a_score_of_the_whole_set_is_called_once_for_each_resample():
    """Search, gate and report rest on the same draws."""
    calls = []

    def score(outputs, targets):
        calls.append(1)
        return area(outputs, targets)

    some = context(score, torch.arange(12.0), torch.arange(12) % 2)
    accuracy(some)
    interval(some.scores)
    assert len(calls) == 1 + RESAMPLES


def costs(module, file=b""):
    """What a network's own figures are; the outputs do not matter."""
    some = Context(make_workload(), Network(module, file, 0), None, None, None, "host", None)
    return {metric.__name__: metric(some).value for metric in (size, download, parameters, nonzero)}


def test_a_download_is_what_a_reader_of_zstd_opens_again():
    weights = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    masked = torch.where(weights.abs() < 1, 0, weights).numpy().tobytes()
    dense, zeros = costs(nn.Identity(), weights.numpy().tobytes()), costs(nn.Identity(), masked)
    assert dense["size"] == zeros["size"] == 400_000
    assert zeros["download"] < 0.6 * dense["download"] < 0.6 * dense["size"]
    alone = len(zstandard.ZstdCompressor(level=3).compress(masked))  # its blocks may be cut elsewhere
    assert zeros["download"] == pytest.approx(alone, rel=0.01)


def test_zeros_of_every_parameter_count_and_shared_ones_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    with torch.no_grad():
        for parameter in (first.weight, first.bias, second.bias):
            parameter.fill_(0.5)
        first.weight[0] = 0
        second.bias[1:] = 0
        first.bias[0] = -0.0
    found = costs(nn.Sequential(first, second))
    assert (found["parameters"], found["nonzero"]) == (24, 24 - 4 - 3 - 1)
