"""Marked channels arrive where the network's forward() takes them, whatever it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
import torch_pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from generated import BLOCKS, averaged, flattened, generated
from nets import TwoConvolutions, images, network, shaken
from odd_nets import Decoder, GatedHalves, Interleaved, NeighbourAttention, SpaceFromChannels, SplitBlock
from secateur.compression.copies import viewed
from secateur.compression.coupling import following
from secateur.compression.coupling.experiment import MARKS, NAN, Experiment
from secateur.compression.coupling.following import Block, Followed, follow
from secateur.compression.coupling.units import Coupling, couplings


def coupled(model, example) -> dict[str, Coupling]:
    experiment = Experiment(model.eval(), (example,))
    return {coupling.name: coupling for coupling in couplings(experiment, follow(experiment))}


def units(coupling: Coupling) -> list[set[tuple[str, str, int]]]:
    """Which indices of which sides of layers each unit owns, in the order of the units."""
    owned: dict[int, set[tuple[str, str, int]]] = {root: set() for root in coupling.roots}
    for member in coupling.members:
        for root, index in zip(member.roots, member.indices, strict=True):
            owned[root].add((member.module, member.side, index))
    return [owned[root] for root in coupling.roots]


def test_a_gate_belongs_to_what_it_gates():
    found = units(coupled(GatedHalves(), images())["first"])
    assert found == [{("first", "out", i), ("first", "out", i + 12), ("second", "in", i)} for i in range(12)]


def test_channels_that_become_space_are_one_unit_for_each_channel_that_they_become():
    found = units(coupled(SpaceFromChannels(), images())["first"])
    assert found == [{("second", "in", i), *(("first", "out", 4 * i + j) for j in range(4))} for i in range(6)]


def test_shuffled_channels_are_followed_to_their_new_places():
    found = units(coupled(Interleaved(), images())["first"])
    assert found == [{("first", "out", i), ("second", "in", i % 6 * 4 + i // 6)} for i in range(24)]


def test_halves_that_are_read_by_different_layers_are_groups_of_their_own():
    found = coupled(SplitBlock(), images())
    assert units(found["first:0"]) == [{("first", "out", i), ("second", "in", i)} for i in range(12)]
    read_twice = [{("first", "out", 12 + i), ("inner.0", "in", i), ("second", "in", 12 + i)} for i in range(12)]
    assert units(found["first"]) == read_twice, "the one with more layers has the plain name"


def test_channels_that_depend_on_each_other_leave_all_together():
    assert coupled(NeighbourAttention(), images())["first"].problem == "its 24 channels can only leave all together"


def test_a_head_of_keys_and_values_belongs_to_its_queries():
    found = units(coupled(Decoder(layers=1), torch.randint(0, 32, (2, 6)))["layers.0.q"])
    size = {"q": 32, "k": 16, "v": 16, "o": 32}
    assert found == [
        {
            (f"layers.0.{name}", "in" if name == "o" else "out", head * count + i)
            for name, count in size.items()
            for i in range(count)
        }
        for head in range(2)
    ]


def test_other_outputs_of_a_layer_may_go_where_some_are_the_models():
    class Half(TwoConvolutions):
        def forward(self, x):
            x = self.one(x)
            return x[:, :3].mean((2, 3)), self.head(F.relu(self.two(F.relu(x))).mean((2, 3)))

    found = coupled(Half(), images())
    assert found["one"].roots == tuple(range(3, 8))
    assert found["head"].problem == "its channels are the model's output"


@pytest.mark.parametrize("name", ["residual", "depthwise-separable", "dense block", "VGG", "U-Net", "sigmoid"])
def test_torch_pruning_finds_the_same_where_it_is_right(name):
    model = network(name)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=images())
    names = {module: name for name, module in model.named_modules()}
    found = [coupling for coupling in coupled(model, images()).values() if coupling.problem is None]
    assert len(found) >= 2
    for coupling in found:
        root = model.get_submodule(coupling.root)
        for number, unit in zip(coupling.roots, units(coupling), strict=True):
            group = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, [number])
            theirs = set()
            for dependency, indices in group:
                layer = dependency.target.module
                if layer in names:
                    side = "out" if graph.is_out_channel_pruning_fn(dependency.handler) else "in"
                    theirs |= {(names[layer], side, index) for index in indices}
            assert unit == theirs


def one_by_one(experiment: Experiment) -> Followed:
    """Every channel marked alone, with both marks: slow, and exact."""
    blocks = []
    for layer in experiment.layers:
        for channel in range(0 if layer.passes else layer.writes):
            seen = np.logical_or.reduce([experiment.reach({layer.name: [channel]}, mark) for mark in MARKS])
            blocks.append(Block(layer, (channel,), np.flatnonzero(seen)))
    return Followed(tuple(blocks), {})


@settings(max_examples=25, derandomize=True, database=None)
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.sampled_from((averaged, flattened)), st.integers(0, 5)
)
def test_halving_finds_what_marking_one_by_one_finds(blocks, end, seed):
    experiment = Experiment(generated(blocks, end, seed), (images(),))
    assert couplings(experiment, follow(experiment)) == couplings(experiment, one_by_one(experiment))


def test_independent_channels_take_few_passes(monkeypatch):
    experiment, passes = Experiment(network("VGG"), (images(),)), []
    reach = experiment.reach
    monkeypatch.setattr(experiment, "reach", lambda *given: (passes.append(given), reach(*given))[1])
    follow(experiment)
    assert len(passes) <= 4 * len(MARKS) + 2 * 4, (
        "all channels of 4 layers at once, then 2·log₂ 16 for all layers together"
    )


class Stream(nn.Module):
    """Residual blocks, whose outputs arrive wherever those of earlier ones do."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 32, 1), nn.Linear(32, 5)
        self.one, self.two = (nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(blocks)) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        for one, two in zip(self.one, self.two, strict=True):
            x = x + two(F.relu(one(x)))
        return self.head(x.mean((2, 3)))


def test_a_block_more_in_a_stream_takes_its_layers_own_passes_and_no_more(monkeypatch):
    def passes(blocks: int) -> int:
        torch.manual_seed(0)
        experiment, counted = Experiment(Stream(blocks).eval(), (images(),)), []
        reach = experiment.reach
        monkeypatch.setattr(experiment, "reach", lambda *given: (counted.append(given), reach(*given))[1])
        assert all(len(block.channels) == 1 for block in follow(experiment).blocks)
        return len(counted)

    assert passes(6) - passes(2) == 4 * 2, "both layers alone with the first mark"


class Placed(TwoConvolutions):
    """What it adds along an edge is no channels; of one place more is read than of the others."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(8, 1, 16))

    def forward(self, x):
        x = self.one(x) + self.place
        return self.head(self.two(x)[..., 0].mean(2) + x[..., 0].mean(2))


def test_a_dimension_without_channels_is_not_divided_further(monkeypatch):
    experiment, alone = Experiment(Placed().eval(), (torch.randn(2, 3, 8, 16),)), []
    reach = experiment.reach
    monkeypatch.setattr(experiment, "reach", lambda *given: (alone.append([*given[0]]), reach(*given))[1])
    found = {coupling.name: coupling for coupling in couplings(experiment, follow(experiment))}
    assert alone.count([":place:2"]) <= 3, "whole, and both halves"
    assert (":place:0", "out", 3) in units(found["one"])[3]


def test_two_dimensions_of_a_tensor_are_marked_at_once_and_left_as_they_were():
    model = Placed().eval()
    before = model.place.clone()
    experiment = Experiment(model, (torch.randn(2, 3, 8, 16),))
    experiment.reach({":place:0": range(8), ":place:2": range(16)}, NAN)
    torch.testing.assert_close(model.place, before, rtol=0, atol=0)


class Averaged(TwoConvolutions):
    def forward(self, x):
        return self.head(self.two(F.relu(self.one(x))).mean((2, 3)))


class Positions(Averaged):
    """It takes images of one size only."""

    def forward(self, x):
        return super().forward(x + torch.linspace(0, 1, 128))


@pytest.mark.parametrize(("model", "edge"), [(Averaged, 32), (Positions, 128)])
def test_channels_are_followed_in_as_small_a_part_of_the_example_as_the_model_takes(model, edge):
    model, sizes = model().eval(), []
    model.one.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    experiment = Experiment(model, (torch.randn(2, 3, 128, 128),))
    del sizes[:]
    found = {coupling.name: coupling for coupling in couplings(experiment, follow(experiment))}
    assert set(sizes) == {edge}
    assert units(found["one"]) == [{("one", "out", i), ("two", "in", i)} for i in range(8)]


def test_an_experiment_leaves_the_model_as_it_was_and_takes_no_second_copy_of_its_weights():
    model = shaken(Decoder(layers=1)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = viewed(model)
    assert {p.data_ptr() for p in copy.parameters()} == {p.data_ptr() for p in model.parameters()}
    coupled(model, torch.randint(0, 32, (2, 6)))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_where_too_many_sets_must_be_marked_one_by_one_they_count_as_one(monkeypatch):
    monkeypatch.setattr(following, "MOST_TURNS", 2)
    found = coupled(GatedHalves(), images())
    assert len(found["first"].roots) == 12, "two turns are enough for halves"
    monkeypatch.setattr(following, "MOST_TURNS", 1)
    assert len(coupled(GatedHalves(), images())["first"].roots) < 12


class Swallowing(TwoConvolutions):
    """NaN does not survive."""

    def forward(self, x):
        x = torch.nan_to_num(self.one(x))
        return self.head(self.two(torch.where(x > 0, x, torch.zeros_like(x))).mean((2, 3)))


class Refusing(TwoConvolutions):
    def forward(self, x):
        x = self.one(x)
        if torch.isnan(x).any():
            raise ValueError("NaN")
        return self.head(self.two(x).mean((2, 3)))


@pytest.mark.parametrize("model", [Swallowing, Refusing])
def test_what_nan_does_not_show_a_finite_mark_shows(model):
    found = units(coupled(shaken(model()), images())["one"])
    assert found == [{("one", "out", i), ("two", "in", i)} for i in range(8)]


class Converging(TwoConvolutions):
    """A loop on values, which does not end for NaN, nor for large numbers."""

    def forward(self, x):
        x = self.one(x)
        while not bool(x.abs().max() < 10):
            x = x + 0
        return self.head(self.two(x).mean((2, 3)))


def test_a_pass_that_does_not_end_is_ended_and_the_group_stays_whole():
    found = coupled(Converging(), images())
    assert "its channels cannot be followed: forward() does not end within" in str(found["one"].problem)
    assert found["two"].problem is None
    assert torch.is_grad_enabled(), "what forward() was in the middle of has been left in order"
