from __future__ import annotations

import pytest
import torch

from nets import NETWORKS, images, network
from secateur.compression.composition import after, composed
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.transforms import TRANSFORMS
from secateur.records import Candidate, Edit
from secateur.testing.transforms import RULE, random_scores


def drawn(groups, generator, most=None):
    """A random plan: any kind of cut, of most of the groups. most: levels that it goes down at most."""
    edits = {}
    for group in groups:
        options = [
            Edit(transform.name, level, "random")
            for transform in TRANSFORMS.values()
            for level in transform.levels(group, RULE, 1)[:most]
        ]
        if options and torch.rand((), generator=generator) < 0.8:
            edits[group.name] = (options[int(torch.randint(len(options), (), generator=generator))],)
    return resolve(Candidate.of(edits), groups, {group.name: random_scores(group, generator) for group in groups})


@pytest.mark.parametrize("name", [*NETWORKS])
def test_two_plans_one_after_the_other_are_one_of_the_original(name):
    """Groups, rows of weights and their numbers are right in the cut network: cut there, it is the network of one plan."""
    model = network(name)
    found = find_groups(model, (images(2),))
    groups = (*found.groups, *found.fixed, *found.blocks)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        first = drawn(groups, generator, most=3)
        left = [own for group in groups if (own := after(group, first)) is not None]
        then = drawn(left, generator)
        assert first.steps
        assert then.steps
        expected = apply(apply(model, first), then)
        actual = apply(model, composed(model, first, then))
        assert all(torch.equal(t, expected.state_dict()[k]) for k, t in actual.state_dict().items())
        assert actual.state_dict().keys() == expected.state_dict().keys()


def test_what_a_bypass_has_left_out_is_no_group_any_more():
    model = network("residual")
    found = find_groups(model, (images(2),))
    block = found.blocks[0]
    plan = resolve(Candidate({block.name: (Edit("depth", 0, "random"),)}), found.blocks, {block.name: {}})
    inside = [group for group in found.groups if group.name.startswith(f"{block.name}.")]
    assert inside
    assert after(block, plan) is None
    assert [after(group, plan) for group in inside] == [None] * len(inside)
