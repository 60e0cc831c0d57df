"""The one promise that everything rests on: a plan that is carried out gives what its reference computes."""

from __future__ import annotations

import pytest
import torch

from nets import NETWORKS, images, network
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.transforms.channels import without


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_cut_equals_zeroed_for_random_channels_of_all_groups(name, share):
    model = network(name)
    found = find_groups(model, (images(),))
    generator = torch.Generator().manual_seed(3)
    removed = {}
    for group in found.groups:
        count = max(1, int(share * len(group.removable)))
        order = torch.randperm(len(group.removable), generator=generator)[:count]
        removed[group.name] = [group.removable[i] for i in order.tolist()]
    plan = without(found.groups, removed)

    smaller, masked = apply(model, plan), reference(model, plan)

    x = images(4, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), masked(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(smaller(x), model(x), atol=1e-3), (
            "the cut did nothing, so the comparison says nothing"
        )
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_groups_to_cut_and_its_output_is_left_alone(name):
    found = find_groups(network(name), (images(),))
    assert len(found.groups) >= 2
    assert any("output" in e.reason for e in found.excluded)


def test_groups_of_one_layer_are_united_whatever_their_order():
    model = network("dense block")
    groups = find_groups(model, (images(),)).groups
    removed = {group.name: group.removable[:2] for group in groups}
    forwards, backwards = without(groups, removed), without(groups[::-1], removed)
    assert forwards.removed == backwards.removed
    assert len(forwards.removed["in"]["head"]) == 2 * 4
