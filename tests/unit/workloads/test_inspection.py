"""Data, loss and score of a workload are tried before long work; what cannot be used is named by role and sample."""

# ruff: noqa: ARG005 # the functions of a workload take outputs and targets, whether they look at them or not
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from secateur.errors import WorkloadError
from secateur.records import ROLES, DataRoles, Workload
from secateur.workloads.inspection import Bounds, inspect_workload
from secateur.workloads.loading import guarded_workload
from secateur.workloads.roles import collect, split_roles
from secateur.workloads.scores import top1

CLASSES = 4


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))


def part(seed, count=80):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % CLASSES)


class Changed(Dataset):
    """A data set with one sample that something has been done to."""

    def __init__(self, base, change, number=37):
        self.base, self.change, self.number = base, change, number

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        image, label = self.base[index]
        return self.change(image, label) if index in (self.number, None) or self.number is None else (image, label)


def workload(**changes):
    roles = {role: part(i) for i, role in enumerate(ROLES)}
    parts = {name: changes.pop(name) for name in list(changes) if name in ROLES}
    made = Workload("tiny", tiny, (torch.zeros(2, 3, 8, 8),), DataRoles(**(roles | parts)), nn.CrossEntropyLoss(), top1)
    return replace(made, **changes)


def inspected(made, **bounds):
    return inspect_workload(guarded_workload(made), made.build_model(), Bounds(**bounds)).looked_at


def unreadable(_image, _label):
    raise OSError("truncated file")


def with_nan(image, label):
    return image.index_fill(0, torch.tensor([1]), float("nan")), label


FAULTS = {
    "raises": (unreadable, r"sample 37 raised OSError: truncated file \(at .*test_inspection.py:\d+\)"),
    "NaN": (with_nan, "sample 37 holds NaN or infinity in its input"),
    "infinite target": (lambda x, _: (x, torch.tensor(float("inf"))), "sample 37 holds NaN or infinity in its target"),
    "label outside": (lambda x, _: (x, torch.tensor(7)), r"at sample 37, whose target is 7. The model's outputs are"),
    "negative label": (lambda x, _: (x, torch.tensor(-1)), r"at sample 37, whose target is -1"),
    "other size": (
        lambda x, y: (x[:, :5], y),
        r"sample 37 gives inputs \(3, 5, 8\) float32; example_inputs are \(3, 8, 8\) float32",
    ),
    "a dict": (lambda x, y: {"image": x, "label": y}, r"sample 37 is a dict; a pair \(input, target\) is needed"),
    "target is a dict": (
        lambda x, y: (x, {"boxes": y}),
        r"sample 37 gives a target boxes \(\) int64, the first sample \(\) int64",
    ),
    "target is text": (lambda x, _: (x, "cat"), r"sample 37 has a tuple of 1 \(str\) as its target"),
    "three parts": (lambda x, y: (x, y, 3), r"sample 37 is a list of 3 \(Tensor, Tensor, Tensor\); a pair"),
    "text": (lambda x, y: ("cat.png", y), r"sample 37 has a tuple of 1 \(str\) as its input"),
    "other target": (
        lambda x, _: (x, torch.zeros(2)),
        r"sample 37 gives a target \(2,\) float32, the first sample \(\)",
    ),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_sample_is_named_in_every_role(role, fault):
    change, words = FAULTS[fault]
    with pytest.raises(WorkloadError, match=words) as caught:
        inspected(workload(**{role: Changed(part(9), change)}))
    assert f"'{role}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_samples_of_small_roles_are_looked_at_and_a_draw_of_large_ones():
    assert inspected(workload()) == dict.fromkeys(ROLES, (80, 80))
    assert inspected(workload(train=part(5, 300)), most=100)["train"] == (100, 300)


def test_slow_data_is_looked_at_for_a_while_only():
    clock = iter(range(0, 10_000, 3))
    assert inspected(workload(train=part(5, 300)), seconds=10.0, clock=lambda: next(clock))["train"] == (160, 300)


def test_a_data_loader_stands_for_its_data_set_and_its_collate_function():
    def halved(samples):
        return torch.stack([x for x, _ in samples]) / 2, torch.tensor([int(y) for _, y in samples])

    base = part(7)
    given = DataLoader(base, batch_size=16, collate_fn=halved)
    made = guarded_workload(workload(search=given, train=DataLoader(part(8), batch_size=4, shuffle=True)))
    (images,), labels = collect(made.data.search)
    assert torch.equal(images, base.tensors[0] / 2)
    assert torch.equal(labels, base.tensors[1])
    inspect_workload(made, tiny())
    assert len(guarded_workload(workload(test=DataLoader(base, sampler=SubsetRandomSampler([3, 5])))).data.test) == 2
    roles = split_roles(DataLoader(part(8, 600), collate_fn=halved))
    assert torch.equal(collect(roles.test)[0][0][0], part(8, 600)[int(roles.test.indices[0])][0] / 2)


class Stream(IterableDataset):
    def __iter__(self):
        yield from part(3)


class Endless:
    def __getitem__(self, index):
        return part(3)[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Stream(), r"'search' is an iterable data set \(Stream\).*list\(dataset\)"),
        (DataLoader(Stream()), r"'search' is an iterable data set"),
        (Endless(), "'search' is a Endless without __len__"),
        (None, "'search' is a NoneType without __len__"),
        (
            DataLoader(part(3), sampler=torch.utils.data.WeightedRandomSampler([1.0] * 80, 10)),
            "WeightedRandomSampler chooses",
        ),
    ],
)
def test_what_has_no_numbered_samples_is_refused_with_what_to_do(given, words):
    with pytest.raises(WorkloadError, match=words):
        guarded_workload(workload(search=given))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"score": lambda o, t: "good"},
            "The workload's score gives a str; it must give one number a sample, or one for all",
        ),
        ({"score": lambda o, t: o}, r"The workload's score gives \(80, 4\) for 80 samples"),
        (
            {"score": lambda o, t: torch.tensor(float("nan"))},
            "The workload's score on all 80 search samples is not finite",
        ),
        ({"score": lambda o, t: 1 / 0}, r"score raised ZeroDivisionError.*It was called on all 80 search samples"),
        ({"score": lambda o, t: top1(o, t) * 30}, "its unit is 'share'"),
        ({"loss": lambda o, t: (o**2).mean().item()}, "The workload's loss gives a float; it must be a tensor"),
        ({"loss": lambda o, t: o}, r"The workload's loss gives \(64, 4\) for 64 samples; it must be one number"),
        ({"loss": lambda o, t: o.detach().sum()}, "The workload's loss carries no gradient"),
        ({"loss": lambda o, t: o.sum() / 0}, "The workload's loss on 64 calibration samples is -?inf"),
        ({"score": 3}, "The workload's score is a int, neither a function nor an object with update and compute"),
        ({"loss": 3}, "The workload's loss is a int, not a function"),
        (
            {"example_inputs": torch.zeros(2, 3, 8, 8)},
            "example_inputs must be a tuple of the model's arguments, or a dict .* a Tensor is",
        ),
        ({"example_inputs": (torch.zeros(2, 3), torch.zeros(3))}, r"'input_1' is \(3,\), another one has 2 samples"),
        ({"output": lambda o: [o]}, r"output gives list for 64 samples; .*The model returns output: choose one with"),
        ({"output": lambda o: o.argmax(1)}, r"output gives \(64,\) int64 for 64 samples"),
        ({"data": {"train": None}}, "The workload's data is a dict; make DataRoles"),
        ({"augment": 1}, "The workload's augment is a int"),
    ],
)
def test_loss_score_and_fields_that_cannot_be_used(changes, words):
    with pytest.raises(WorkloadError, match=words):
        inspected(workload(**changes))


def test_a_score_of_the_whole_set_is_tried_on_all_search_data():
    """An area under a curve says nothing of samples of one class; as a plain float, as scikit-learn gives it."""

    def area(outputs, targets):
        positive = targets == 3
        if not positive.any() or positive.all():
            raise ValueError("only one class")
        return np.float64(np.mean(outputs[positive, 3].numpy() > outputs[~positive, 3].numpy().mean()))

    calibration = TensorDataset(torch.randn(64, 3, 8, 8), torch.zeros(64, dtype=torch.long))
    made = workload(score=area, calibration=calibration)
    assert inspected(made)["search"] == (80, 80)
    assert guarded_workload(made).score(torch.rand(6, 4), torch.tensor([0, 3, 1, 3, 2, 0])).shape == ()
