"""Attention maps: where layers are strong, over all channels, and what a student learns of them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from conftest import make_workload
from nets import network
from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.limits import check_attention
from secateur.recovery.attention import Attention, attention_map
from secateur.recovery.fine_tune import fine_tune
from secateur.recovery.terms import Batch


def distill(*layers, weight=1.0):
    return DistillDefinition(attention=layers, attention_weight=weight)


def test_a_map_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[1.0, 0.0]]]])  # two channels, two positions
    torch.testing.assert_close(attention_map(features), nn.functional.normalize(torch.tensor([[1.0, 2.0]])))
    tokens = features[:, :, 0].transpose(1, 2)
    torch.testing.assert_close(attention_map(tokens), attention_map(features))


def test_channels_of_equal_strength_may_leave_and_the_map_stays():
    features = torch.rand(2, 1, 4, 4).expand(2, 6, 4, 4)
    torch.testing.assert_close(attention_map(features[:, :2]), attention_map(features))


def test_the_distance_is_that_of_the_layers_that_both_have():
    teacher = network("residual")
    student = copy.deepcopy(teacher)
    student.layer1[1] = nn.Identity()
    maps = Attention(student, teacher, distill("layer1.1", "layer2", "layer1.1.conv1"))
    (term,) = maps.terms
    x = torch.randn(2, 3, 8, 8)
    batch = Batch((x,), student(x), None)
    teacher(x)
    expected = [
        (attention_map(maps._own.outputs[name]) - attention_map(maps._taught.outputs[name])).square().mean()
        for name in ("layer1.1", "layer2")
    ]
    torch.testing.assert_close(term.of(batch), sum(expected) / 2)
    assert term.weight == 1.0
    assert term.of(batch) > 0
    assert set(maps._own.outputs) == {"layer1.1", "layer2"}
    maps.close()
    maps._own.outputs.clear()
    student(x)
    assert not maps._own.outputs
    assert Attention(teacher, teacher, None).terms == ()


def test_training_brings_the_maps_together_and_leaves_no_hooks():
    workload = make_workload()
    teacher = workload.build_model()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    x = torch.stack([workload.data.selection[i][0] for i in range(32)])

    def distance(model):
        maps = Attention(model, teacher, distill("layer1", "layer2"))
        with torch.no_grad():
            model(x), teacher(x)
            found = maps.terms[0].of(Batch((x,), None, None)).item()
        maps.close()
        return found

    settings = RecoverDefinition(epochs=2, batch=32, distill=distill("layer1", "layer2", weight=1000.0))
    tuned = fine_tune(student, teacher, workload, settings).module
    plain = fine_tune(student, teacher, workload, RecoverDefinition(epochs=2, batch=32)).module
    assert distance(tuned) < distance(plain)
    assert not any(layer._forward_hooks for model in (teacher, tuned) for layer in model.modules())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("layer7", "no layer is called 'layer7'. Did you mean 'layer"),
        ("linear", "'linear' gives (2, 5), which has no attention map"),
    ],
)
def test_layers_without_a_map_are_refused(layer, says):
    workload = make_workload()
    with pytest.raises(DefinitionError) as error:
        check_attention(RecoverDefinition(distill=distill("layer1", layer)), workload.build_model(), workload)
    assert says in str(error.value)
    check_attention(RecoverDefinition(distill=None), SimpleNamespace(named_modules=list), workload)
