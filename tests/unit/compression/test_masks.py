from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn

from nets import images, network
from secateur.compression.costs import nonzero_after, parameter_count
from secateur.compression.groups import find_groups
from secateur.compression.masks import (
    by_row,
    count_of,
    keep_zero,
    mask_of,
    unwritten,
    weights_of,
    zeroed,
    zeros_in,
    zeros_of,
)
from secateur.compression.plan import apply, reference
from secateur.compression.resolution import resolve
from secateur.compression.transforms import TRANSFORMS
from secateur.definition import GroupRule
from secateur.records import Candidate, Edit, Group, Mask, Member, Plan, Remove, Weights
from secateur.testing.transforms import random_scores

RULE = GroupRule(methods=["weights/magnitude"], zeros=(0.0, 0.99), patterns=["2:4", "1:4"])


def scored(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {group.name: random_scores(group, generator) for group in groups}


@given(st.integers(1, 5), st.integers(1, 30), st.randoms(use_true_random=False))
def test_a_mask_is_written_down_and_read_back(rows, size, rng):
    zeros = torch.tensor([[[rng.random() < 0.5] for _ in range(size)] for _ in range(rows)])
    mask = mask_of(Weights("a", tuple(range(rows)), size, 1), zeros)
    assert torch.equal(zeros_of(mask, size), zeros[..., 0])
    assert count_of(mask) == int(zeros.sum())


def test_a_plan_with_masks_survives_json_and_has_a_key_of_its_own():
    weights = Weights("a", (0, 1), 4, 1)
    plans = [
        Plan((Remove("b", "out", (1,)), mask_of(weights, torch.arange(8).view(2, 4, 1) % 2 == odd))) for odd in (0, 1)
    ]
    adapter = TypeAdapter(Plan)
    assert [adapter.validate_json(adapter.dump_json(plan)) for plan in plans] == plans
    assert len({plan.key for plan in (*plans, Plan(plans[0].removals))}) == 3


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 4), nn.Conv2d(6, 4, 3), nn.ConvTranspose2d(6, 4, 3), nn.Conv2d(6, 4, 3, groups=2)]
)
def test_some_weights_of_some_rows_become_zero_and_the_original_keeps_them(layer):
    before, original = by_row(layer, layer.weight).clone(), layer.weight
    rows = (1, 3)
    zeros = torch.rand(2, *before.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.5
    zeroed(layer, mask_of(Weights("", rows, *before.shape[1:]), zeros))
    expected = before.clone()
    expected[list(rows)] = expected[list(rows)].masked_fill(zeros, 0.0)
    assert torch.equal(by_row(layer, layer.weight), expected)
    assert layer.weight.shape == original.shape
    assert torch.equal(by_row(layer, original), before)


def test_every_weight_of_convolutions_and_linear_layers_belongs_to_one_group():
    model = network("residual")
    found = find_groups(model, (images(),))
    owned: dict[str, list[int]] = {}
    for group in (*found.groups, *found.fixed):
        for weights in group.weights:
            owned.setdefault(weights.layer, []).extend(weights.rows)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {name: sorted(rows) for name, rows in owned.items()} == {
        n: [*range(len(m.weight))] for n, m in layers.items()
    }
    assert [group.name for group in found.fixed] == ["linear"], "its channels are the model's output"
    assert not found.fixed[0].removable


def test_a_weight_that_two_layers_have_is_not_masked():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    members = [Member(name, "out", "linear", (0,), (0,)) for name in "012"]
    assert [weights.layer for weights in weights_of(model, members)] == ["1"]
    assert [weights.layer for weights in unwritten(model, [])] == ["1"]


def test_of_single_weights_the_lowest_scores_go_over_all_layers_of_the_group():
    found = find_groups(network("residual"), (images(),))
    stream = found.groups[0]
    assert len(stream.weights) > 1
    scores = scored([stream])
    plan = resolve(Candidate({stream.name: (Edit("weights", 300, "random"),)}), [stream], scores)
    sizes = {w.layer: w.inputs * w.kernel for w in stream.weights}
    zeros = torch.cat([zeros_of(mask, sizes[mask.layer]).flatten() for mask in plan.masks])
    values = scores[stream.name]["weights/random"]
    assert int(zeros.sum()) == round(0.7 * len(values))
    assert values[zeros].max() < values[~zeros].min()


def test_equal_scores_go_in_their_order_and_no_more_than_the_level_says():
    group = Group("a", "Linear", (), 1, (), 10, 10, weights=(Weights("a", (0,), 10, 1),))
    plan = resolve(Candidate({"a": (Edit("weights", 700, "r"),)}), [group], {"a": {"weights/r": torch.ones(10)}})
    assert zeros_of(plan.masks[0], 10).tolist() == [[True] * 3 + [False] * 7]


def mixed(groups):
    """Channels leave the first group, weights of its readers become zero: in a pattern, or anywhere."""
    stream, *others = groups
    edits = {stream.name: (Edit("channels", stream.width - 3, "random"),)}
    edits |= {group.name: (Edit("n_m", "2:4", "random"),) for group in others[::2]}
    edits |= {group.name: (Edit("weights", 400, "random"),) for group in others[1::2]}
    return resolve(Candidate(edits), groups, scored(groups))


def test_channels_and_weights_of_one_network_go_together():
    model = network("residual")
    groups = [*(found := find_groups(model, (images(),))).groups, *found.fixed]
    plan = mixed(groups)
    assert plan.masks
    assert plan.removals
    small, x = apply(model, plan), images(4)
    with torch.no_grad():
        torch.testing.assert_close(small(x), reference(model, plan)(x), rtol=1e-4, atol=1e-5)
    zeros = sum(int(gone.sum()) for _, gone in zeros_in(small, plan.masked))
    assert nonzero_after(model, plan) == parameter_count(small) - zeros
    assert all((layer.weight != 0).any() for layer in small.modules() if isinstance(layer, nn.Conv2d))


def test_a_pattern_holds_for_what_is_left_of_the_inputs():
    """The inputs that leave are not counted: windows are those of the network that is shipped."""
    model = network("residual")
    groups = [*(found := find_groups(model, (images(),))).groups, *found.fixed]
    plan = mixed(groups)
    small = apply(model, plan)
    patterned = {w.layer for group in groups[1:][::2] for w in group.weights}
    left = {name: by_row(layer, layer.weight) for name in patterned if (layer := small.get_submodule(name))}
    assert any(weight.shape[1] % 4 for weight in left.values()), "some window is not full"
    for weight in left.values():
        kept = (weight != 0).movedim(1, 2).numpy()
        for start in range(0, kept.shape[2], 4):
            assert np.all(kept[:, :, start : start + 4].sum(2) <= 2)
        assert kept.sum() >= weight.numel() // 2, "no more goes than the pattern asks for"


def test_of_a_window_the_highest_scores_stay():
    group = Group("a", "Linear", (), 1, (), 8, 8, weights=(Weights("a", (0,), 8, 1),))
    scores = {"a": {"weights/r": torch.tensor([4.0, 1, 3, 2, 5, 5, 5, 5])}}
    plan = resolve(Candidate({"a": (Edit("n_m", "2:4", "r"),)}), [group], scores)
    assert zeros_of(plan.masks[0], 8)[0, :4].tolist() == [False, True, False, True]
    assert zeros_of(plan.masks[0], 8).sum() == 4


def test_a_pattern_needs_a_layer_as_wide_as_itself():
    narrow, wide = Weights("a", (0,), 3, 1), Weights("b", (0,), 4, 1)
    rule, level = GroupRule(methods=["n_m/magnitude"], patterns=["1:4", "2:4"]), Edit("n_m", "2:4", "r")
    group = Group("g", "Linear", (), 1, (), 7, 7, weights=(narrow, wide))
    assert TRANSFORMS["n_m"].levels(group, rule, 1) == ("2:4", "1:4")
    steps = TRANSFORMS["n_m"].steps(group, level, {"weights/r": torch.arange(7.0)}, Plan())
    assert [mask.layer for mask in steps] == ["b"]
    assert not TRANSFORMS["n_m"].levels(Group("g", "Linear", (), 1, (), 3, 3, weights=(narrow,)), rule, 1)


def test_what_is_zero_can_be_kept_so():
    model = network("residual")
    groups = find_groups(model, (images(),)).groups
    small = apply(model, plan := mixed(groups))
    masked = zeros_in(small, plan.masked)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    keep_zero(masked)
    assert all(bool((weight[gone] == 0).all() and (weight[~gone] != 0).any()) for weight, gone in masked)


def test_a_mask_of_weights_is_a_thirtieth_of_them_on_disk():
    """A bit each, in text: an unrecovered front does not weigh what its networks do."""
    zeros = torch.rand(256, 256, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    mask: Mask = mask_of(Weights("a", tuple(range(256)), 256, 9), zeros)
    assert len(mask.zeros) < 4 * math.prod(zeros.shape) / 20


def test_blocks_of_lowest_mean_score_go_whole():
    group = Group("a", "Conv2d", (), 1, (), 32, 32, weights=(Weights("a", (0, 1, 2, 3), 4, 2),))
    scores = torch.zeros(4, 4, 2)
    scores[2:, 1, 0], scores[:2, 3, 1] = 5.0, torch.tensor([9.0, 0.5])  # means 5 and 4.75: what comes next is zero
    candidate = Candidate({"a": (Edit("blocks", "2x1@125", "r"),)})
    plan = resolve(candidate, [group], {"a": {"weights/r": scores.flatten()}})
    kept = ~zeros_of(plan.masks[0], 8).view(4, 4, 2)
    assert kept.nonzero().tolist() == [[0, 3, 1], [1, 3, 1], [2, 1, 0], [3, 1, 0]]


def test_blocks_are_those_of_what_is_left():
    """Inputs 0 and 2 have left: a block of two inputs is that of 1 and 3."""
    group = Group("a", "Linear", (), 1, (), 8, 8, weights=(Weights("a", (0, 1), 4, 1),))
    reader = Plan((Remove("a", "in", (0, 2)),))
    scores = {"weights/r": torch.tensor([9.0, 1, 9, 1, 9, 2, 9, 2])}
    (mask,) = TRANSFORMS["blocks"].steps(group, Edit("blocks", "1x2@500", "r"), scores, reader)
    assert zeros_of(mask, 4).tolist() == [[False, True, False, True], [False] * 4]


def test_a_block_needs_room_for_another():
    rule = GroupRule(methods=["blocks/magnitude"], block="4x4", zeros=(0.4, 0.6))
    small, large = (Group("g", "Linear", (), 1, (), 7, 7, weights=(Weights("a", (0, 1, 2, 3), n, 1),)) for n in (7, 8))
    assert TRANSFORMS["blocks"].levels(small, rule, 1) == ()
    assert TRANSFORMS["blocks"].levels(large, rule, 1)[0] == "4x4@600"
