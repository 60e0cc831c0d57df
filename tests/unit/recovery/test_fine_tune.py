from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.utils.data import Dataset, Subset

from conftest import make_workload
from nets import network
from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.recovery import loop
from secateur.recovery.checkpoint import Checkpoint
from secateur.recovery.fine_tune import Training, fine_tune, train_steps
from secateur.recovery.masks import kept
from secateur.recovery.precision import Precision, precision_for
from secateur.recovery.terms import Batch, distillation_loss, terms_of, total
from secateur.workloads.roles import collect

SETTINGS = RecoverDefinition(epochs=2, batch=32, learning_rate=0.02)
THREE = SETTINGS.model_copy(update={"epochs": 3})


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


def test_what_a_mask_has_set_to_zero_stays_so(teacher):
    """And only that: weights of other layers that happen to be zero are trained."""
    workload = make_workload(teacher)
    student = broken(teacher)
    masked, other = [name for name, layer in student.named_modules() if isinstance(layer, nn.Conv2d)][:2]
    zeros = {}
    with torch.no_grad():
        for name in (masked, other):
            weight = student.get_submodule(name).weight
            zeros[name] = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.5
            weight.masked_fill_(zeros[name], 0.0)
    tuned = fine_tune(student, teacher, workload, SETTINGS, Training(masks=kept((masked,)))).module
    assert not tuned.get_submodule(masked).weight[zeros[masked]].any()
    assert (
        tuned.get_submodule(masked).weight[~zeros[masked]] != student.get_submodule(masked).weight[~zeros[masked]]
    ).any()
    assert tuned.get_submodule(other).weight[zeros[other]].all()


def test_the_student_comes_closer_to_its_teacher(teacher):
    workload = make_workload(teacher)
    student = broken(teacher)
    losses = []
    tuned = fine_tune(
        student, teacher, workload, SETTINGS, Training(on_epoch=lambda epoch, loss: losses.append((epoch, loss)))
    )
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


class Tied(nn.Module):
    """Two layers with one weight, as token embeddings and the last layer of a language model have."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 5)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x).relu())


def test_tied_weights_are_kept_after_an_epoch_and_stay_tied(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    one, other = (loop.learner_for(Tied(), SETTINGS, "cpu") for _ in range(2))
    one.student(torch.ones(2, 5)).sum().backward()
    one.optimizer.step()
    state = Checkpoint(one, file, 5.0, lambda: 0.0)
    state.progress.epochs = 1
    state.finish()
    assert Checkpoint(other, file, 5.0, lambda: 0.0).progress.epochs == 1
    again = other.student
    assert again.last.weight is again.first.weight
    assert equal(one.student, again)


@pytest.mark.parametrize("batch", [32, 500])
def test_a_short_training_takes_as_many_steps_as_it_is_told(teacher, monkeypatch, batch):
    """A batch larger than the train role is as large as the role, in each of the steps."""
    workload = make_workload(teacher)
    small = dataclasses.replace(workload.data, train=Subset(workload.data.train, range(100)))
    taken = []
    monkeypatch.setattr(loop, "_schedule", lambda _optimizer, _settings, done: taken.append(done))
    settings = RecoverDefinition(epochs=9, batch=batch, learning_rate=0.01)
    train_steps(teacher, teacher, dataclasses.replace(workload, data=small), settings, 4)
    assert taken == [0.0, 0.25, 0.5, 0.75]


class Forgetful(nn.Module):
    """Dropout draws from torch's own generator."""

    def __init__(self):
        super().__init__()
        self.body = network("residual")
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.drop(self.body(x))


class Noisy(Dataset):
    """Samples that are augmented on access, with numpy and with Python's generator, as many data sets are."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        x, y = self.samples[i]
        return x * np.float32(1 + 0.1 * np.random.rand()) + 0.1 * random.random(), y  # noqa: NPY002


def shifted(images, generator):
    return images + 0.1 * torch.randn(images.shape, generator=generator)


@pytest.fixture(scope="module")
def random_everywhere():
    """A model and a workload with random numbers from every source."""
    model = Forgetful().eval()
    workload = make_workload(model)
    data = dataclasses.replace(workload.data, train=Noisy(Subset(workload.data.train, range(128))))
    return model, dataclasses.replace(workload, data=data, augment=shifted)


def equal(one, other):
    return all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items())


def disturb(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def test_the_seed_is_all_that_the_weights_depend_on(random_everywhere):
    teacher, workload = random_everywhere
    student = broken(teacher)
    tuned = []
    for outside, seed in ((1, 4), (2, 4), (1, 5)):
        disturb(outside)
        tuned.append(fine_tune(student, teacher, workload, SETTINGS, Training(seed=seed)).module)
    assert equal(tuned[0], tuned[1])
    assert not equal(tuned[0], tuned[2])


def test_training_leaves_the_random_numbers_of_others_alone(random_everywhere):
    teacher, workload = random_everywhere

    def drawn():
        return torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002

    disturb(3)
    expected = drawn()
    disturb(3)
    fine_tune(teacher, teacher, workload, SETTINGS)
    assert drawn() == expected


class Killed(Exception):
    pass


def resumed(student, teacher, workload, checkpoint, after=1, settings=THREE):
    """Trained, killed after an epoch, and trained to the end by a process whose own random numbers are others."""

    def kill(epoch, _loss):
        if epoch == after:
            raise Killed

    with pytest.raises(Killed):
        fine_tune(student, teacher, workload, settings, Training(checkpoint=checkpoint, on_epoch=kill))
    disturb(99)
    epochs = []
    tuned = fine_tune(
        student, teacher, workload, settings, Training(checkpoint=checkpoint, on_epoch=lambda e, _: epochs.append(e))
    )
    assert epochs == list(range(after + 1, 4))
    return tuned.module


@pytest.mark.parametrize("after", [1, 2])
def test_training_killed_after_an_epoch_ends_with_the_very_same_weights(random_everywhere, tmp_path, after):
    teacher, workload = random_everywhere
    student = broken(teacher)
    whole = fine_tune(student, teacher, workload, THREE, Training(checkpoint=tmp_path / "a.safetensors"))
    assert equal(whole.module, resumed(student, teacher, workload, tmp_path / "b.safetensors", after))


def test_the_scale_of_the_loss_goes_on_where_it_was(random_everywhere, tmp_path, monkeypatch):
    """In float16 the scale grows and shrinks with what overflowed before."""
    teacher, workload = random_everywhere
    scaler = partial(torch.amp.GradScaler, growth_interval=3)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    student, settings = broken(teacher), THREE.model_copy(update={"precision": "fp16"})
    whole = fine_tune(student, teacher, workload, settings, Training(checkpoint=tmp_path / "a.safetensors"))
    assert equal(whole.module, resumed(student, teacher, workload, tmp_path / "b.safetensors", settings=settings))
    stored = [
        json.loads(safe_open(tmp_path / f, "pt").metadata()["training"]) for f in ("a.safetensors", "b.safetensors")
    ]
    assert stored[0]["scaler"] == stored[1]["scaler"]
    assert stored[0]["scaler"]["scale"] != 65536.0


def overflowing(steps):
    """A loss that is infinite at these calls."""
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        value = nn.functional.cross_entropy(outputs.float(), targets)
        return value * math.inf if len(calls) in steps else value

    return loss


def test_a_loss_that_overflows_in_float16_costs_a_step_and_not_the_training(teacher):
    workload = dataclasses.replace(make_workload(teacher), loss=overflowing({4, 5, 13}))
    settings = SETTINGS.model_copy(update={"distill": None, "precision": "fp16"})
    losses = []
    tuned = fine_tune(
        broken(teacher), teacher, workload, settings, Training(on_epoch=lambda _, loss: losses.append(loss))
    )
    assert (tuned.stopped, tuned.epochs) == (None, 2)
    assert all(math.isfinite(loss) for loss in losses)
    assert all(torch.isfinite(tensor).all() for tensor in tuned.module.state_dict().values())


def test_a_loss_that_overflows_again_and_again_ends_the_training(teacher):
    workload = dataclasses.replace(make_workload(teacher), loss=overflowing(range(12, 100)))
    settings = SETTINGS.model_copy(update={"epochs": 3, "distill": None, "precision": "fp16"})
    tuned = fine_tune(broken(teacher), teacher, workload, settings)
    assert tuned.stopped.startswith(f"the loss became inf in epoch 2, step {2 + loop.MOST_OVERFLOWS}")
    assert tuned.epochs == 1


def test_half_precision_is_chosen_by_what_the_gpu_computes_in_unless_the_definition_says():
    assert precision_for("cpu", "auto", lambda: True) == Precision()
    assert precision_for("cuda", "auto", lambda: True) == Precision(torch.bfloat16, scaled=False)
    assert precision_for("cuda", "auto", lambda: False) == Precision(torch.float16, scaled=True)
    assert precision_for("cuda", "fp32", lambda: True) == Precision()
    assert precision_for("cpu", "bf16", lambda: False) == Precision(torch.bfloat16)


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
    outputs = student(x)
    hard = workload.loss(outputs, y)
    soft = distillation_loss(outputs, teacher(x), 4.0)
    mixed = total(terms_of(workload, teacher, DistillDefinition(temperature=4.0, weight=0.25)), Batch((x,), outputs, y))
    torch.testing.assert_close(mixed, 0.25 * soft + 0.75 * hard)


def test_the_schedule_is_half_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for step in range(5):
        loop._schedule(optimizer, RecoverDefinition(learning_rate=0.2), step / 4)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5), 0.0])


def test_a_warm_up_goes_before_it():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for done in (0.0, 0.1, 0.2, 0.6, 1.0):
        loop._schedule(optimizer, RecoverDefinition(learning_rate=0.2, warmup=0.2), done)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.0])


def test_biases_and_norms_are_not_decayed():
    groups = loop._parameter_groups(network("residual"), 0.01)
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert all(p.dim() <= 1 for p in groups[1]["params"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_mixed_precision_on_a_gpu_ends_near_the_cpu(teacher):
    workload = make_workload(teacher)
    student = broken(teacher)
    ends = [
        fine_tune(student, teacher, workload, SETTINGS, Training(device=device)).module for device in ("cpu", "cuda")
    ]
    gaps = [divergence(end, teacher, workload) for end in ends]
    assert gaps[1] == pytest.approx(gaps[0], rel=0.3)
