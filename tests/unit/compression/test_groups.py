from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import nn

from nets import Grouped, HardCoded, Normed, images, network, shaken
from secateur.compression.costs import layer_costs, parameter_count, parameters_after
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.proof import Proof
from secateur.compression.transforms.channels import without
from secateur.errors import ModelError
from secateur.records import Group, Member


def test_padded_shortcuts_couple_with_their_offset():
    model = network("option-A residual")
    group = next(g for g in find_groups(model, (images(),)).groups if g.name == "conv1")
    by_layer = {(m.module, m.side): dict(zip(m.roots, m.indices, strict=True)) for m in group.members}
    assert by_layer["layer1.0.conv2", "out"][0] == 0
    assert by_layer["layer2.0.conv2", "out"][0] == 4, "8 → 16 channels: four zeros come first"
    assert by_layer["layer3.0.conv2", "out"][0] == 12, "16 → 32 channels: eight more"
    assert by_layer["linear", "in"][7] == 19


def test_padded_shortcuts_leave_the_padding_whole():
    model = network("option-A residual")
    groups = find_groups(model, (images(),)).groups
    smaller = apply(model, without(groups, {"conv1": range(6)}))
    assert smaller.get_submodule("layer1.0.conv2").weight.shape[0] == 2
    assert smaller.get_submodule("layer2.0.conv2").weight.shape[0] == 10
    assert smaller.get_submodule("layer3.0.conv2").weight.shape[0] == 26


class WideFirst(nn.Module):
    """The root layer lies behind the pad: its outer channels meet zeros, which cannot shrink, and are pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 12, 3, padding=1)
        self.narrow = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        padded = torch.nn.functional.pad(self.narrow(x), (0, 0, 0, 0, 2, 4))
        return self.head(torch.relu(self.wide(x) + padded).mean((2, 3)))


def test_channels_that_meet_zeros_are_pinned():
    group = next(g for g in find_groups(shaken(WideFirst()), (images(),)).groups if g.name == "wide")
    assert group.width == 12
    assert group.removable == (2, 3, 4, 5, 6, 7)
    assert group.least == 7, "without all six the narrow layer would have no channel left"


def test_what_cannot_be_cut_stays_whole_with_the_reason():
    reasons = {e.name: e.reason for e in find_groups(shaken(HardCoded()), (images(),)).excluded}
    assert "does not run without its channels" in reasons["one"]
    assert "output" in reasons["head"]
    assert "two" not in reasons


def test_norms_over_channels_are_cut_and_then_see_those_that_stay():
    model = shaken(Normed())
    groups = find_groups(model, (images(),)).groups
    assert [g.name for g in groups] == ["one", "two", "hidden"]
    smaller = apply(model, without(groups, {"one": (0, 5), "hidden": (1, 2, 7)}))
    one, hidden = [1, 2, 3, 4, 6, 7], [0, 3, 4, 5, 6]
    with torch.no_grad():
        y = model.one(images())[:, one]
        y = torch.relu(F.group_norm(y, 1, model.group_norm.weight[one], model.group_norm.bias[one]))
        y = torch.relu(F.conv2d(y, model.two.weight[:, one], model.two.bias, padding=1)).mean((2, 3))
        y = F.layer_norm(
            model.hidden(y)[:, hidden], (5,), model.layer_norm.weight[hidden], model.layer_norm.bias[hidden]
        )
        expected = F.linear(torch.relu(y), model.head.weight[:, hidden], model.head.bias)
        torch.testing.assert_close(smaller(images()), expected)
    assert (smaller.group_norm.num_channels, smaller.layer_norm.normalized_shape) == (6, (5,))


def test_the_groups_of_a_convolution_leave_whole():
    model = shaken(Grouped())
    group = find_groups(model, (images(),)).groups[0]
    assert (group.name, group.width, group.removable) == ("one.0", 2, (0, 1)), "two units of four channels each"
    smaller = apply(model, without([group], {"one.0": [0]}))
    grouped = smaller.get_submodule("two.0")
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (1, 4, 4)
    assert torch.equal(grouped.weight, model.get_submodule("two.0").weight[4:])


class Conv1D(nn.Module):
    """The linear layer of GPT-2 in `transformers`: its weight is (inputs, outputs)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / 3), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


class Tokens(nn.Module):
    """A stream as in language models: tied embeddings, positions, a learnt scale, norms of two kinds, a turned linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.positions = nn.Parameter(torch.randn(1, 8, 12))
        self.register_buffer("mean", torch.randn(12))
        self.norm, self.last = nn.LayerNorm(12), nn.RMSNorm(12)
        self.up, self.down = Conv1D(16, 12), nn.Linear(16, 12)
        self.scale = nn.Parameter(torch.rand(12))
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens) + self.positions[:, : tokens.shape[1]] - self.mean
        x = x + self.scale * self.down(F.gelu(self.up(self.norm(x))))
        return self.head(self.last(x)).mean(1)


def test_a_stream_is_cut_with_everything_that_holds_its_channels():
    torch.manual_seed(0)
    model = shaken(Tokens())
    tokens = torch.randint(0, 20, (3, 6))
    found = find_groups(model, (tokens,))
    assert {g.name: g.width for g in found.groups} == {"up": 16, "down": 12}
    members = {member.module for member in found.groups[1].members}
    assert members == {"embed", ":positions:2", ":mean:0", "norm", "last", "up", "down", ":scale:0", "head"}
    plan = without(found.groups, {"up": (0, 9), "down": (1, 3, 11)})
    smaller = apply(model, plan)
    assert smaller.positions.shape == (1, 8, 9)
    assert smaller.mean.shape == (9,)
    assert smaller.up.weight.shape == (9, 14)
    assert smaller.head.weight is smaller.embed.weight, "what was tied stays tied"
    torch.testing.assert_close(smaller(tokens), reference(model, plan)(tokens))
    assert parameters_after(model, plan) == parameter_count(smaller)
    assert found.costs.after(plan) == layer_costs(smaller, (tokens,)).total


def test_whoever_waits_is_told_how_far_it_is():
    told = []
    find_groups(network("residual"), (images(),), lambda text, share: told.append((text, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] > 0.8
    assert len({text for text, _ in told}) == 2, "the couplings and the proof"


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(5, 4, 1)

    def forward(self, x):
        return self.second(self.first(x))


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.first(x).argmax(1)


class NoTensor(Detached):
    def forward(self, x):
        return {"images": len(x)}


class Total(Detached):
    def forward(self, x):
        return self.first(x), {"total": self.first(x).sum()}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Fails(), "fails in layer 'second' (Conv2d)"),
        (Detached(), "carries no gradient"),
        (NoTensor(), "returns a dict without a tensor"),
        (
            Total(),
            "output_1_total is () for 2 samples; every tensor that forward() returns needs the batch as its first",
        ),
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "No group of this model can be cut"),
    ],
)
def test_models_that_cannot_be_traced_say_where(model, words):
    with pytest.raises(ModelError, match=words.replace("(", r"\(").replace(")", r"\)")):
        find_groups(model, (images(),))


class Shared(nn.Module):
    """One layer used twice: its channels are coupled with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.twice(torch.relu(self.twice(x)))).mean((2, 3)))


def test_whatever_is_offered_for_a_reused_layer_is_right():
    model = shaken(Shared())
    try:
        groups = find_groups(model, (images(),)).groups
    except ModelError:
        return  # nothing offered is right as well
    for group in groups:
        smaller = apply(model, without([group], {group.name: group.removable[:3]}))
        assert smaller(images()).shape == (2, 5)


class Faint(nn.Module):
    """As HardCoded in meaning: its first channel matters beyond its group. And its outputs are tiny."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.one(x))
        return 1e-6 * self.head((x / x.sum(1, keepdim=True).clamp_min(1e-3) * x.shape[1]).mean((2, 3)))


def test_the_proof_is_as_strict_for_small_outputs():
    channels = tuple(range(8))
    members = (
        Member("one", "out", "convolution", channels, channels),
        Member("head", "in", "linear", channels, channels),
    )
    claimed = Group("one", "Conv2d", members, 8, channels, 0, 0)
    proven, refuted = Proof(shaken(Faint()), (images(),)).proven([claimed])
    assert not proven
    assert "removing its channels is not the same as zeroing them" in refuted["one"]


def test_frozen_layers_are_ranked_like_the_others():
    from conftest import make_workload
    from secateur.compression.saliency import compute_saliencies
    from secateur.workloads.loading import build_model

    frozen = network("residual").requires_grad_(False)
    workload = make_workload(frozen)
    model = build_model(workload)
    groups = find_groups(model, workload.example_inputs).groups
    scores = compute_saliencies(model, groups, ["taylor"], workload)
    assert all(by["taylor"].sum() > 0 for by in scores.values())
