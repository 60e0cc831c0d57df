from __future__ import annotations

import dataclasses

import pytest
import torch

from conftest import make_workload
from nets import NETWORKS, images, network
from secateur.compression.compensation.batch_norm import recalibrate
from secateur.compression.compensation.gram import grams_of
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.errors import EvaluationFailed
from secateur.evaluators.cutting import Cutting
from secateur.records import Plan
from secateur.workloads.roles import collect


def cutting(name: str, *, refitting: bool = True):
    """What cuts a network, and the removal of every other channel."""
    model = network(name)
    workload = make_workload(model)
    groups = find_groups(model, workload.example_inputs).groups
    made = Cutting(model, workload)
    if refitting:
        made.grams = grams_of(model, groups, workload, 64)
    return made, without(groups, {g.name: g.removable[::2][: g.width - g.least] for g in groups}), workload, model


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    return all(torch.equal(tensor, right.state_dict()[key]) for key, tensor in left.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_candidates_are_nearer_to_the_dense_network_with_their_readers_refitted(name):
    errors = []
    for refitting in (False, True):
        made, plan, workload, model = cutting(name, refitting=refitting)
        module, outputs = made.probed(plan, 0)
        (x,), _ = collect(workload.data.calibration, 64)
        with torch.no_grad():
            torch.testing.assert_close(outputs, module(x))
            errors.append(float((outputs - model(x)).square().mean()))
    assert errors[1] < errors[0]


def test_two_processes_with_the_same_gram_matrices_reach_the_same_weights():
    (one, plan, *_), (other, *_) = cutting("residual"), cutting("residual")
    other.grams = one.grams
    other.cut(without([], {}), 16)  # what was asked before does not matter
    assert same(one.cut(plan, 16), other.cut(plan, 16))
    assert same(one.refined(plan, 16, 64), other.refined(plan, 16, 64))


def test_without_gram_matrices_nothing_is_refitted():
    made, plan, _, model = cutting("residual", refitting=False)
    assert made.grams == {}
    plain = apply(model, plan)
    assert same(made.cut(plan, 0), plain)
    recalibrate(plain, plan, made._dense(16))
    assert same(made.cut(plan, 16), plain)
    assert same(made.refined(plan, 16, 64), plain)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_finalist_has_the_least_loss_on_calibration_data(name):
    made, plan, workload, _ = cutting(name)
    (x,), y = collect(workload.data.calibration, 64)
    with torch.no_grad():
        refined = float(workload.loss(made.refined(plan, 32, 64)(x), y))
        assert refined <= float(workload.loss(made.cut(plan, 32)(x), y)) + 1e-5


def test_statistics_that_do_harm_are_not_carried_over(monkeypatch):
    made, plan, *_ = cutting("residual")

    def harmful(module, *_):
        with torch.no_grad():
            module.linear.weight.mul_(-100.0)
            return module(images())

    monkeypatch.setattr("secateur.evaluators.cutting.recalibrate", harmful)
    assert float(made.refined(plan, 16, 64).linear.weight.detach().abs().max()) < 10
    assert float(made.cut(plan, 16).linear.weight.detach().abs().max()) > 10


def test_a_loss_that_is_no_number_is_the_worst_one():
    made, plan, workload, _ = cutting("residual")
    losses = iter([float("nan"), 2.0, float("nan")])
    made._workload = dataclasses.replace(workload, loss=lambda *_: torch.tensor(next(losses)))
    assert not same(made.refined(plan, 16, 64), made.cut(plan, 16))


def test_a_network_that_does_not_run_any_more_is_the_candidates_failure():
    made, plan, *_ = cutting("residual")
    broken = Plan(tuple(step for step in plan.steps if step.side == "out"))
    for call in (lambda: made.cut(broken, 16), lambda: made.refined(broken, 16, 64)):
        with pytest.raises(EvaluationFailed, match="the cut network does not run"):
            call()
