"""Hints: what a projection is fitted to, what is taught through it, and what a killed training keeps of it."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from conftest import make_workload
from nets import images
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.errors import DefinitionError, EvaluationFailed
from secateur.pipelines.limits import check_inner_layers
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.hints import Hints, fitted, relative_distance
from secateur.recovery.terms import Batch
from secateur.workloads.roles import collect

LAYERS = ("layer1.0.conv1", "layer1", "layer2")
SETTINGS = {"epochs": 2, "batch": 64, "checkpoint_minutes": 0.0}


def hinted(*layers, **changed):
    return DistillDefinition(hints=layers, **changed)


@pytest.fixture(scope="module")
def workload():
    return make_workload()


@pytest.fixture(scope="module")
def teacher(workload):
    return workload.build_model()


@pytest.fixture(scope="module")
def student(workload, teacher):
    """Half of the channels of every group are gone."""
    groups = find_groups(teacher, workload.example_inputs).groups
    return apply(teacher, without(groups, {g.name: g.removable[::2] for g in groups}))


def test_a_projection_that_exists_is_found():
    own = torch.randn(40, 7, 3, generator=torch.Generator().manual_seed(0))
    true = nn.Linear(3, 5)
    found = fitted(own, true(own))
    torch.testing.assert_close(found.weight, true.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.bias, true.bias, rtol=1e-3, atol=1e-4)
    dead = torch.cat((own, torch.zeros_like(own[..., :1])), -1)
    assert not fitted(dead, true(own)).weight[:, 3].any(), "a channel that is always nought says nothing"


def test_the_distance_is_relative_to_what_is_taught():
    own, taught = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
    assert relative_distance(own, taught).item() == pytest.approx((4 + 1) / (9 + 1))
    torch.testing.assert_close(relative_distance(7 * own, 7 * taught), relative_distance(own, taught))
    assert relative_distance(taught, taught) == 0


def test_layers_that_have_lost_channels_are_seen_through_a_projection_and_others_as_they_are(
    workload, teacher, student
):
    hints = Hints(student, teacher, workload, hinted("conv1", *LAYERS, weight=0.5, hints_weight=3.0), "cpu")
    (term,) = hints.terms
    x, _ = collect(workload.data.train, 8)
    student(*x), teacher(*x)
    expected = []
    for layer in ("conv1", *LAYERS):
        own, taught = hints._pair.own.outputs[layer], hints._pair.taught.outputs[layer]
        assert own.shape[1] < taught.shape[1]
        projection = hints.projections[layer.replace(".", "/")]
        seen = nn.functional.conv2d(own, projection.weight[:, :, None, None], projection.bias)
        expected.append((seen - taught).square().mean() / taught.square().mean())
    torch.testing.assert_close(term.of(Batch(x, None, None)), sum(expected) / 4)
    assert term.weight == 3.0
    hints.close()
    same = Hints(teacher, teacher, workload, hinted(*LAYERS), "cpu")
    assert not len(same.projections)
    teacher(*x)
    assert same.terms[0].of(Batch(x, None, None)) == 0
    same.close()
    assert Hints(student, teacher, workload, None, "cpu").terms == ()
    assert not any(layer._forward_hooks for model in (teacher, student) for layer in model.modules())


def test_what_is_taught_through_a_projection_comes_closer(workload, teacher, student):
    def apart(model):
        hints = Hints(model, teacher, workload, hinted(*LAYERS), "cpu")
        x, _ = collect(workload.data.selection)
        with torch.no_grad():
            model(*x), teacher(*x)
            found = hints.terms[0].of(Batch(x, None, None)).item()
        hints.close()
        return found

    taught, plain = (
        fine_tune(student, teacher, workload, RecoverDefinition(**SETTINGS, distill=distill)).module
        for distill in (hinted(*LAYERS, hints_weight=100.0), hinted())
    )
    assert apart(taught) < 0.9 * apart(plain)
    assert taught.state_dict().keys() == student.state_dict().keys()
    assert not any(layer._forward_hooks for layer in taught.modules())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_projections_go_on_where_they_were(workload, teacher, student, tmp_path, optimizer):
    settings = RecoverDefinition(**SETTINGS, optimizer=optimizer, ema=0.9, clip=1.0, distill=hinted(*LAYERS))
    calls = itertools.count(1)

    def deadly(outputs, targets):
        if next(calls) in (4, 8):
            raise KeyboardInterrupt
        return workload.loss(outputs, targets)

    whole = fine_tune(student, teacher, workload, settings).module
    dying = dataclasses.replace(workload, loss=deadly)
    training = Training(checkpoint=tmp_path / "checkpoint.safetensors")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fine_tune(student, teacher, dying, settings, training)
    again = fine_tune(student, teacher, dying, settings, training).module
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in whole.state_dict().items())


class Odd(nn.Module):
    """Layers whose outputs are no hints."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.flat = nn.Flatten()
        self.both = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x):
        x = self.conv(x).relu()
        self.both(x.flatten(2).transpose(1, 2))
        return self.head(self.flat(x))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("con", "no layer is called 'con'. Did you mean 'conv'"),
        ("both", "'both' gives a tuple; a hint is one tensor"),
    ],
)
def test_layers_that_are_no_hints_are_refused(layer, says):
    model = Odd().eval()
    workload = dataclasses.replace(make_workload(model), example_inputs=(images(2),))
    groups = find_groups(model, (images(2),)).groups
    with pytest.raises(DefinitionError) as error:
        check_inner_layers(RecoverDefinition(distill=hinted("conv", layer)), model, workload, groups)
    assert says in str(error.value)
    check_inner_layers(RecoverDefinition(distill=hinted("conv", "flat")), model, workload, groups)


def test_shapes_that_differ_in_more_than_channels_are_refused(workload):
    class Square(nn.Module):
        """What a layer gives against itself: channels by channels."""

        def forward(self, x):
            return torch.einsum("nchw,ndhw->ncd", x, x)

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Square(), nn.Flatten(), nn.Linear(64, 5)).eval()
    cut = nn.Sequential(nn.Conv2d(3, 6, 3), Square(), nn.Flatten(), nn.Linear(36, 5)).eval()
    with pytest.raises(EvaluationFailed, match=r"'1' gives \(\d+, 6, 6\) in place of \(\d+, 8, 8\)"):
        Hints(cut, model, workload, hinted("1"), "cpu")


def test_hints_need_the_built_in_trainer():
    with pytest.raises(ValidationError, match="leave one of 'hints' and 'trainer' out"):
        RecoverDefinition(trainer="a:b", distill=hinted("layer1"))
