"""Where forward() divides channels evenly, one of each part is a unit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import nn

from nets import images, shaken
from odd_nets import Interleaved, Odd, SplitBlock
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.transforms.channels import without


class EverySecond(Odd):
    """Only odd channels are read."""

    behind = 12

    def middle(self, x):
        return F.relu(x)[:, 1::2]


class Pairs(Odd):
    """Neighbours are told apart, and read in another order."""

    def middle(self, x):
        pairs = x.view(len(x), -1, 2, *x.shape[2:])
        return torch.cat([F.relu(pairs[:, :, 1]), torch.tanh(pairs[:, :, 0])], 1)


class ShapedLikeItsInput(Odd):
    """A convolution whose output is given the shape of its input, as where attention reduces its sequence in SegFormer."""

    def build(self):
        self.inner = nn.Conv2d(24, 24, 3, padding=1)

    def middle(self, x):
        return F.relu(self.inner(x).reshape(x.shape))


@pytest.mark.parametrize(
    ("kind", "owned"),
    [
        (SplitBlock, {5: {5, 17}}),
        (Interleaved, {5: {5, 11, 17, 23}}),
        (EverySecond, {5: {10, 11}}),
        (Pairs, {5: {10, 11}}),
        (ShapedLikeItsInput, {5: {5}}),
    ],
)
def test_channels_that_must_leave_in_step_are_one_unit(kind, owned):
    torch.manual_seed(0)
    model = shaken(kind())
    group = next(g for g in find_groups(model, (images(),)).groups if g.name == "first")
    root = next(m for m in group.members if (m.module, m.side) == ("first", "out"))
    for unit, channels in owned.items():
        assert {i for r, i in zip(root.roots, root.indices, strict=True) if r == unit} == channels
    plan = without([group], {"first": (0, 3, 4)})
    x = images(3, seed=4)
    torch.testing.assert_close(apply(model, plan)(x), reference(model, plan)(x))


class Unequal(Odd):
    """A third of the channels, told apart by a number in forward(): no unit is right."""

    def middle(self, x):
        first, rest = x.split([8, 16], 1)
        return torch.cat([F.relu(first), torch.tanh(rest)], 1)


def test_what_no_unit_mends_stays_whole_with_the_first_reason():
    found = find_groups(shaken(Unequal()), (images(),))
    assert [g.name for g in found.groups] == ["second"]
    assert "does not run without its channels" in next(e.reason for e in found.excluded if e.name == "first")


def test_a_network_of_nothing_but_halves_is_cut():
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x):
            left, right = self.one(x).chunk(2, -1)
            return self.two(torch.cat([right, torch.relu(left)], -1))

    found = find_groups(Halves(), (torch.randn(4, 6),))
    assert [(g.name, g.width) for g in found.groups] == [("one", 8)]
