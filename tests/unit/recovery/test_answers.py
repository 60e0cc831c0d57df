"""The teacher's answers: asked for once where that changes nothing."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch.utils.data import Dataset

from conftest import make_workload
from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.recovery import answers
from secateur.recovery.answers import Answers
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.precision import Precision

SETTINGS = RecoverDefinition(epochs=2, batch=32)


@pytest.fixture(scope="module")
def workload():
    return make_workload(samples=200)


@pytest.fixture
def teacher(workload):
    """Counts the samples that it is asked about; its copies count on."""
    model, asked = copy.deepcopy(workload.build_model()), []
    model.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    model.asked = asked
    return model


def asked(teacher, workload, shared, settings):
    """Samples that the teacher is asked about in a training, and the trained network."""
    model = copy.deepcopy(workload.build_model())
    teacher.asked.clear()
    module = fine_tune(model, teacher, workload, settings, Training(answers=shared)).module
    return sum(teacher.asked), module


def equal(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("changed", [{}, {"accumulate": 3, "precision": "bf16"}, {"training_steps": 5, "epochs": None}])
def test_the_teacher_is_asked_once_for_all_trainings_with_the_very_same_result(workload, teacher, changed):
    settings = RecoverDefinition(**{"epochs": 2, "batch": 32, **changed})
    shared = Answers()
    always, whole = asked(teacher, workload, None, settings)
    once, cached = asked(teacher, workload, shared, settings)
    never, again = asked(teacher, workload, shared, settings)
    assert (once - never, always > once) == (32 * math.ceil(len(workload.data.train) / 32), True)
    assert equal(whole, cached)
    assert equal(whole, again)


class Random(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        x, y = self.samples[i]
        return x + torch.rand(()), y


def test_samples_that_change_and_answers_that_take_much_are_not_kept(workload, teacher, monkeypatch):
    def answer(**changed):
        return Answers().of(teacher.eval(), dataclasses.replace(workload, **changed), SETTINGS, "cpu", Precision())

    numbers = [5, 0, 7]
    x = torch.stack([workload.data.train[number][0] for number in numbers])
    torch.testing.assert_close(answer()(numbers), teacher(x).detach())
    assert answer(augment=lambda x, _: x) is None
    assert answer(dynamic_axes={"x": {2: "height"}}) is None
    assert answer(data=dataclasses.replace(workload.data, train=Random(workload.data.train))) is None
    monkeypatch.setattr(answers, "MOST_BYTES", 4 * 5 * len(workload.data.train) - 1)
    assert answer() is None


def test_where_inner_layers_are_learnt_from_the_teacher_is_at_work_in_each_step(workload, teacher):
    shared = Answers()
    settings = RecoverDefinition(training_steps=2, batch=32, distill=DistillDefinition(attention=("layer1",)))
    assert asked(teacher, workload, shared, settings)[0] == asked(teacher, workload, None, settings)[0]
