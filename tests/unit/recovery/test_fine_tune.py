from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from conftest import make_workload
from nets import network
from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.recovery import fine_tune as module
from secateur.recovery.fine_tune import distillation_loss, fine_tune
from secateur.workloads.roles import collect

SETTINGS = RecoverDefinition(epochs=2, batch=32, learning_rate=0.02)


@pytest.fixture(scope="module")
def teacher():
    return make_workload().build_model()


def broken(model: nn.Module) -> nn.Module:
    """A student that has forgotten something."""
    student = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return student


def divergence(student, teacher, workload):
    (x,), _ = collect(workload.data.selection)
    with torch.no_grad():
        return distillation_loss(student(x), teacher(x), 4.0).item()


def test_the_student_comes_closer_to_its_teacher(teacher):
    workload = make_workload(teacher)
    student = broken(teacher)
    losses = []
    tuned = fine_tune(student, teacher, workload, SETTINGS, on_epoch=lambda epoch, loss: losses.append((epoch, loss)))
    assert divergence(tuned.module, teacher, workload) < 0.7 * divergence(student, teacher, workload)
    assert [epoch for epoch, _ in losses] == [1, 2]
    assert losses[1][1] < losses[0][1]
    assert (tuned.epochs, tuned.stopped) == (2, None)
    assert not tuned.module.training


def test_teacher_and_student_are_left_as_they_were(teacher):
    workload = make_workload(teacher)
    student = broken(teacher)
    before = [copy.deepcopy(m.state_dict()) for m in (teacher, student)]
    fine_tune(student, teacher, workload, SETTINGS)
    for model, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())
    assert all(p.requires_grad for p in teacher.parameters())


def test_the_same_seed_gives_the_same_weights(teacher):
    workload = make_workload(teacher)
    one, two = (fine_tune(broken(teacher), teacher, workload, SETTINGS, seed=4).module for _ in range(2))
    assert all(torch.equal(t, two.state_dict()[k]) for k, t in one.state_dict().items())


def test_training_killed_between_epochs_goes_on_to_the_same_weights(teacher, tmp_path):
    workload = make_workload(teacher)
    whole = fine_tune(broken(teacher), teacher, workload, SETTINGS, checkpoint=tmp_path / "a.safetensors")

    class Killed(Exception):
        pass

    def kill(epoch, loss):
        raise Killed

    checkpoint = tmp_path / "b.safetensors"
    with pytest.raises(Killed):
        fine_tune(broken(teacher), teacher, workload, SETTINGS, checkpoint=checkpoint, on_epoch=kill)
    epochs = []
    resumed = fine_tune(
        broken(teacher), teacher, workload, SETTINGS, checkpoint=checkpoint, on_epoch=lambda e, _: epochs.append(e)
    )
    assert epochs == [2]
    for key, tensor in whole.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[key], tensor, msg=key)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights_and_a_reason(teacher):
    workload = make_workload(teacher)
    calls = []

    def explodes(outputs, targets):
        calls.append(1)
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss * math.nan if len(calls) > 10 + 3 else loss  # 326 training samples: 10 steps an epoch

    student = broken(teacher)
    settings = SETTINGS.model_copy(update={"epochs": 3, "distill": None})
    tuned = fine_tune(student, teacher, dataclasses.replace(workload, loss=explodes), settings)
    assert tuned.stopped.startswith("the loss became nan in epoch 2, step 4")
    assert tuned.epochs == 1
    one = fine_tune(student, teacher, workload, settings)
    assert all(torch.isfinite(t).all() for t in tuned.module.state_dict().values())
    assert tuned.module.state_dict().keys() == one.module.state_dict().keys()


def test_weights_that_are_not_finite_after_the_last_step_are_not_kept(teacher):
    workload = make_workload(teacher)
    calls = []

    def nan_gradient(outputs, targets):
        calls.append(1)
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss + torch.sqrt(outputs.sum() * 0) if len(calls) == 20 else loss  # the last step of the second epoch

    settings = SETTINGS.model_copy(update={"epochs": 3, "distill": None})
    tuned = fine_tune(broken(teacher), teacher, dataclasses.replace(workload, loss=nan_gradient), settings)
    assert tuned.stopped.startswith("a weight was no longer finite at the end of epoch 2")
    assert tuned.epochs == 1
    assert all(torch.isfinite(t).all() for t in tuned.module.state_dict().values())


def test_distillation_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p, q = torch.softmax(teacher / 2, 1), torch.softmax(student / 2, 1)
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0), 4 * (p * (p / q).log()).sum())
    assert distillation_loss(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_the_weight_shares_the_loss(teacher):
    workload = make_workload(teacher)
    (x,), y = collect(workload.data.train, 16)
    student = broken(teacher)
    hard = workload.loss(student(x), y)
    soft = distillation_loss(student(x), teacher(x), 4.0)
    mixed = module._loss(student, teacher, (x,), y, workload, DistillDefinition(temperature=4.0, weight=0.25))
    torch.testing.assert_close(mixed, 0.25 * soft + 0.75 * hard)


def test_the_schedule_is_half_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for step in range(5):
        module._schedule(optimizer, 0.2, step, 4)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5), 0.0])


def test_biases_and_norms_are_not_decayed():
    groups = module._parameter_groups(network("residual"), 0.01)
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert all(p.dim() <= 1 for p in groups[1]["params"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_mixed_precision_on_a_gpu_ends_near_the_cpu(teacher):
    workload = make_workload(teacher)
    student = broken(teacher)
    ends = [fine_tune(student, teacher, workload, SETTINGS, device=device).module for device in ("cpu", "cuda")]
    gaps = [divergence(end, teacher, workload) for end in ends]
    assert gaps[1] == pytest.approx(gaps[0], rel=0.3)
