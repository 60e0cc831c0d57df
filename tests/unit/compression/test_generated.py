"""Whatever network people write: what is accepted is right for every set of channels, and nothing but ModelError is raised."""

from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generated import BLOCKS, ENDS, generated
from nets import images
from secateur.compression.costs import layer_costs, parameter_count, parameters_after
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.transforms.channels import without
from secateur.errors import ModelError

NETWORKS = {
    "blocks": st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    "end": st.sampled_from(list(ENDS)),
    "seed": st.integers(0, 5),
}


def check(blocks, end, seed, times=4):
    model, x = generated(blocks, end, seed), images(3, seed=seed + 1)
    try:
        found = find_groups(model, (images(),))
    except ModelError as error:
        if "No group of this model can be cut" in str(error):
            return
        raise
    draw = random.Random(seed)
    for _ in range(times):
        some = draw.sample(found.groups, draw.randint(1, len(found.groups)))
        for groups in ([draw.choice(found.groups)], some):
            removed = {g.name: draw.sample(g.removable, draw.randint(1, g.width - g.least)) for g in groups}
            plan = without(groups, removed)
            smaller = apply(model, plan)
            with torch.no_grad():
                actual, expected = smaller(x), reference(model, plan)(x)
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
            assert parameters_after(model, plan) == parameter_count(smaller)
            assert found.costs.after(plan) <= found.costs.total
            if found.costs.other == 0:
                assert found.costs.after(plan) == layer_costs(smaller, (images(),)).total


@settings(max_examples=12, derandomize=True, database=None)
@given(**NETWORKS)
def test_generated_networks_are_cut_right_or_stay_whole(blocks, end, seed):
    check(blocks, end, seed)
