"""Curves of a training: what a point is the mean of, how many there are, and what a killed training has of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from conftest import make_workload
from secateur.definition import RecoverDefinition
from secateur.errors import WorkloadError
from secateur.recovery import fine_tune as fine_tuning
from secateur.recovery.curve import Curve
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.scores import score_on_search
from secateur.workloads.roles import collect

SETTINGS = RecoverDefinition(epochs=2, batch=32, learning_rate=0.02)


@pytest.fixture(scope="module")
def workload():
    return make_workload()


@given(count=st.integers(1, 300), most=st.integers(2, 12))
def test_points_are_means_over_equal_stretches(count, most):
    values = [random.Random(count).uniform(0, 5) for _ in range(count)]
    curve = Curve()
    for value in values:
        curve.add(value, most)
    points, stretch = curve.points(), curve.stretch
    assert most / 2 <= len(points) <= most or stretch == 1
    assert [step for step, _ in points] == [*range(stretch, count, stretch), count]
    for step, mean in points:
        part = values[(step - 1) // stretch * stretch : step]
        assert mean == pytest.approx(sum(part) / len(part))


def test_values_that_are_not_finite_are_in_no_mean():
    curve = Curve()
    for value in (1.0, math.inf, math.nan, 3.0, 5.0):
        curve.add(value, 4)
    assert curve.points() == [(2, 1.0), (4, 3.0), (5, 5.0)]
    lost = Curve()
    lost.add(math.nan)
    assert lost.points() == []


def test_a_training_keeps_its_losses_and_scores_by_step(workload):
    teacher = workload.build_model()
    steps = len(workload.data.train) // 32
    tuned = fine_tune(teacher, teacher, workload, SETTINGS, Training(scored=True))
    assert [step for step, _ in tuned.curve] == list(range(1, 2 * steps + 1))
    losses = [loss for _, loss in tuned.curve]
    assert [sum(losses[:steps]) / steps, sum(losses[steps:]) / steps] == pytest.approx(tuned.losses)
    assert [step for step, _ in tuned.scores] == [steps, 2 * steps]
    few = fine_tune(teacher, teacher, workload, SETTINGS.model_copy(update={"steps": 40}))
    assert (len(few.curve), few.curve[-1][0], few.scores) == (5, 2 * steps, ()), "200 points in 40 steps of cutting"


def test_looking_at_a_network_changes_nothing_in_its_training(workload):
    teacher = workload.build_model()
    seen, unseen = (fine_tune(teacher, teacher, workload, SETTINGS, Training(scored=s)) for s in (True, False))
    assert all(torch.equal(t, unseen.module.state_dict()[k]) for k, t in seen.module.state_dict().items())
    assert (seen.curve, unseen.scores) == (unseen.curve, ())


def test_a_killed_training_has_the_very_same_curves(workload, tmp_path):
    """Killed within an epoch, where steps have been taken since the last file."""
    teacher, calls = workload.build_model(), itertools.count(1)

    def deadly(outputs, targets):
        if next(calls) in (4, 16):
            raise KeyboardInterrupt
        return workload.loss(outputs, targets)

    settings = SETTINGS.model_copy(update={"steps": 40, "checkpoint_minutes": 0.0})
    whole = fine_tune(teacher, teacher, workload, settings, Training(scored=True))
    dying = dataclasses.replace(workload, loss=deadly)
    training = Training(checkpoint=tmp_path / "checkpoint.safetensors", scored=True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fine_tune(teacher, teacher, dying, settings, training)
    again = fine_tune(teacher, teacher, dying, settings, training)
    assert (again.curve, again.scores) == (whole.curve, whole.scores)


def test_the_score_is_that_of_all_search_samples(workload):
    model = workload.build_model()
    (x,), y = collect(workload.data.search)
    expected = workload.score(model(x), y).mean().item()
    assert score_on_search(model.train(), workload, 32, "cpu") == pytest.approx(expected)
    assert not model.training

    def of_few(outputs, targets):
        if len(targets) == 32:
            raise WorkloadError("one class only")
        return torch.tensor(0.25)

    assert score_on_search(model, dataclasses.replace(workload, score=of_few), 32, "cpu") == 0.25
    whole = dataclasses.replace(
        workload, data=dataclasses.replace(workload.data, search=Subset(workload.data.search, range(32)))
    )
    assert math.isnan(score_on_search(model, dataclasses.replace(whole, score=of_few), 32, "cpu"))


def test_within_a_long_epoch_it_is_told_how_far_it_is(workload, monkeypatch):
    """On a clock on which a second passes each time that somebody looks."""
    monkeypatch.setattr(fine_tuning, "TOLD", 8.0)
    teacher, told, ticks = workload.build_model(), [], itertools.count()
    training = Training(on_epoch=lambda *it: told.append(it), clock=lambda: float(next(ticks)))
    tuned = fine_tune(teacher, teacher, workload, SETTINGS.lasting(epochs=1), training)
    epochs, losses = zip(*told, strict=True)
    steps = len(tuned.curve)
    assert 2 <= len(told) < steps
    assert list(epochs) == sorted(epochs)
    assert epochs[-1] == 1
    at = round(epochs[0] * steps)
    assert losses[0] == pytest.approx(sum(loss for _, loss in tuned.curve[:at]) / at)
