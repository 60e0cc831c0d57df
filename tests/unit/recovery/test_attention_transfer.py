"""Attention maps: where layers are strong, over all channels, and what a student learns of them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from conftest import make_workload
from nets import images, network
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.limits import check_inner_layers
from secateur.recovery.attention import Attention, attention_map, head_map
from secateur.recovery.fine_tune import fine_tune
from secateur.recovery.layers import Recorder, attending, probabilities
from secateur.recovery.terms import Batch
from secateur.workloads.attention import SplitAttention
from secateur.workloads.transformer import Attention as Heads
from secateur.workloads.transformer import Sizes, VisionTransformer


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
    x = torch.randn(2, 3, 8, 8)
    maps = Attention(student, teacher, distill("layer1.1", "layer2", "layer1.1.conv1"), (x,))
    (term,) = maps.terms
    batch = Batch((x,), student(x), None)
    teacher(x)
    expected = [
        (attention_map(maps._pair.own.outputs[name]) - attention_map(maps._pair.taught.outputs[name])).square().mean()
        for name in ("layer1.1", "layer2")
    ]
    torch.testing.assert_close(term.of(batch), sum(expected) / 2)
    assert term.weight == 1.0
    assert term.of(batch) > 0
    assert set(maps._pair.own.outputs) == {"layer1.1", "layer2"}
    maps.close()
    maps._pair.own.outputs.clear()
    student(x)
    assert not maps._pair.own.outputs
    assert Attention(teacher, teacher, None, (x,)).terms == ()


def test_training_brings_the_maps_together_and_leaves_no_hooks():
    workload = make_workload()
    teacher = workload.build_model()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    x = torch.stack([workload.data.selection[i][0] for i in range(32)])

    def distance(model):
        maps = Attention(model, teacher, distill("layer1", "layer2"), (x,))
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
        check_inner_layers(RecoverDefinition(distill=distill("layer1", layer)), workload.build_model(), workload)
    assert says in str(error.value)
    check_inner_layers(RecoverDefinition(distill=None), SimpleNamespace(named_modules=list), workload)


class WrittenOut(nn.Module):
    """Attention whose softmax stands in forward()."""

    def __init__(self, attention):
        super().__init__()
        self.of = attention

    def forward(self, x, mask=None):
        query, key, value = (
            part(x).unflatten(-1, (-1, self.of.head_size)).transpose(1, 2)
            for part in (self.of.query, self.of.key, self.of.value)
        )
        scores = query @ key.transpose(2, 3) / self.of.head_size**0.5
        weights = (scores if mask is None else scores.masked_fill(~mask[:, None, None], -torch.inf)).softmax(-1)
        return self.of.output((weights @ value).transpose(1, 2).flatten(2))


def attended(layer, *inputs):
    recorder = Recorder(nn.ModuleDict({"a": layer}), ["a"], {"a"})
    layer(*inputs)
    recorder.close()
    return recorder.attention.get("a")


def test_attention_of_heads_is_seen_however_it_is_computed():
    torch.manual_seed(0)
    x, mask = torch.randn(2, 5, 12), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    plain = Heads(12, 3)
    seen = attended(plain, x, mask)
    assert seen.shape == (2, 3, 5, 5)
    torch.testing.assert_close(seen.sum(-1), torch.ones(2, 3, 5))
    assert not seen[1, :, :, 3:].any()
    torch.testing.assert_close(seen, attended(WrittenOut(plain), x, mask))
    torch_own = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    opened = SplitAttention(torch_own)
    _, expected = torch_own(x, x, x, ~mask, average_attn_weights=False)
    for need_weights in (True, False):
        torch.testing.assert_close(attended(opened, x, x, x, ~mask, need_weights), expected)


def test_probabilities_are_those_of_torch():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 5, 3), torch.randn(2, 2, 6, 3), torch.randn(2, 2, 6, 3)
    shared = [part.repeat_interleave(2, 1) for part in (key, value)]
    added = torch.randn(5, 6)
    added[:, 4:] = -torch.inf
    for given in ({}, {"is_causal": True}, {"attn_mask": added}, {"scale": 0.3}):
        expected = nn.functional.scaled_dot_product_attention(query, *shared, **given)
        torch.testing.assert_close(probabilities(query, *shared, **given) @ shared[1], expected)
    grouped = probabilities(query, key, value, enable_gqa=True)
    torch.testing.assert_close(grouped, probabilities(query, *shared))
    nothing = probabilities(query, *shared, torch.zeros(5, 6, dtype=torch.bool))
    torch.testing.assert_close(nothing, torch.full_like(nothing, 1 / 6))


def test_a_layer_that_computes_attention_is_taught_whom_to_attend_to_whatever_heads_are_left():
    torch.manual_seed(0)
    teacher = VisionTransformer(Sizes(12, 2, 3, 8), size=8, patch=4, channels=3, classes=5).eval()
    x = images(2)
    heads = attending(teacher, (x,))
    assert heads == {"blocks.0.attention", "blocks.1.attention"}
    groups = find_groups(teacher, (x,)).groups
    group = next(g for g in groups if g.name == "blocks.1.attention.query")
    student = apply(teacher, without(groups, {group.name: (1,)}))
    maps = Attention(student, teacher, distill("blocks.1.attention"), (x,))
    student(x), teacher(x)
    own, taught = (r.attention["blocks.1.attention"] for r in (maps._pair.own, maps._pair.taught))
    assert (own.shape[1], taught.shape[1]) == (2, 3)
    found = maps.terms[0].of(Batch((x,), None, None))
    torch.testing.assert_close(found, (head_map(own) - head_map(taught)).square().mean())
    assert found > 0
    found.backward()
    assert student.get_submodule("blocks.1.attention.query").weight.grad.any()
    maps.close()
    torch.testing.assert_close(head_map(taught[:, :1].expand(-1, 3, -1, -1)), head_map(taught[:, :1]))
