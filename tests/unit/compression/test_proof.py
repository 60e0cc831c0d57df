"""No accepted group may be wrong for any set of its channels, however plausible its coupling looked."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from nets import NETWORKS, images, network, residual, shaken
from odd_nets import ODD, Decoder, Heads
from secateur.compression.groups import FoundGroups, find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.proof import SAMPLES, SHARES, Proof, samples
from secateur.compression.transforms.channels import without
from secateur.records import Group, Member, Plan
from secateur.workloads.attention import opened
from zoo import Encoder


def check_random_cuts(model: nn.Module, found: FoundGroups, x: torch.Tensor, times: int = 12) -> None:
    """Each group alone and all groups together, with other sets of channels than the proof's."""
    draw = random.Random(11)
    for _ in range(times):
        for groups in (*([group] for group in found.groups), found.groups):
            removed = {}
            for group in groups:
                most = group.width - group.least
                removed[group.name] = draw.sample(group.removable, draw.randint(1, most))
            plan = without(groups, removed)
            with torch.no_grad():
                smaller, masked = apply(model, plan)(x), reference(model, plan)(x)
            torch.testing.assert_close(smaller, masked, rtol=1e-3, atol=1e-4, msg=f"without {removed}")


@pytest.mark.parametrize("kind", ODD)
def test_what_tracing_gets_wrong_is_cut_right_or_stays_whole(kind):
    torch.manual_seed(0)
    model = shaken(kind())
    found = find_groups(model, (images(),))
    assert "second" in {group.name for group in found.groups}, "what is ordinary may be cut all the same"
    check_random_cuts(model, found, images(3, seed=9))


def test_attention_heads_leave_with_the_number_that_counts_them():
    torch.manual_seed(0)
    model = shaken(Heads())
    tokens = torch.randn(2, 6, 8)
    found = find_groups(model, (tokens,))
    group = next(g for g in found.groups if g.name == "q")
    assert (group.width, group.removable) == (4, (0, 1, 2, 3))
    smaller = apply(model, without([group], {"q": (1,)}))
    assert smaller.heads == 3
    assert smaller.o.weight.shape == (16, 12)
    check_random_cuts(model, found, tokens)


def test_a_decoder_loses_heads_of_keys_with_their_queries_neurons_and_its_stream():
    torch.manual_seed(0)
    model = Decoder(layers=2).eval()
    tokens = torch.randint(0, 32, (2, 6))
    found = find_groups(model, (tokens,))
    widths = {"layers.0.q": 2, "layers.0.o": 64, "layers.0.gate": 128, "layers.1.q": 2, "layers.1.gate": 128}
    assert {group.name: group.width for group in found.groups} == widths
    assert [e.name for e in found.excluded] == ["head"]
    smaller = apply(model, without(found.groups, {"layers.0.q": (0,)}))
    assert (smaller.layers[0].heads, smaller.layers[0].kv_heads, smaller.layers[1].heads) == (2, 1, 4)
    check_random_cuts(model, found, tokens, times=3)


def test_torchs_attention_loses_heads_and_its_stream():
    torch.manual_seed(0)
    model, tokens = opened(shaken(Encoder())), torch.randn(2, 6, 8)
    found = find_groups(model, (tokens,))
    assert [group.width for group in found.groups] == [16, 4, 32, 4, 32], "the stream; heads and neurons of two layers"
    check_random_cuts(model, found, tokens, times=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_that_are_right_share_their_samples(name, monkeypatch):
    model = network(name)
    groups = find_groups(model, (images(),)).groups
    proof, counted = Proof(model, (images(),)), []
    disproof = proof.disproof
    monkeypatch.setattr(proof, "disproof", lambda plan, number: (counted.append(plan), disproof(plan, number))[1])
    assert proof.proven(groups) == (list(groups), {})
    assert len(counted) <= SAMPLES + 1, "however many groups there are"


def a_group(name: str, width: int = 16, removable: int | None = None) -> Group:
    channels = tuple(range(removable or width))
    member = Member(name, "out", "convolution", channels, channels)
    return Group(name, "Conv2d", (member,), width, channels, 0, 0, least=max(1, width - len(channels)))


def test_every_group_meets_every_share_and_never_loses_its_last_channel():
    groups = [a_group("one"), a_group("two", 7), a_group("three", 2), a_group("pinned", 16, 8)]
    drawn = samples(groups)
    assert len(drawn) == SAMPLES, "a subset for each group, as there are four of them"
    for group in groups:
        counts = [len(plan[group.name]) for plan in drawn if group.name in plan]
        assert len(counts) == len(SHARES) + 1
        assert min(counts) in (1, 2)
        assert max(counts) == (8 if group.name == "pinned" else group.width - 1)
        assert all(set(plan[group.name]) <= set(group.removable) for plan in drawn if group.name in plan)
    assert any(len(plan["one"]) % 2 for plan in drawn if "one" in plan)
    assert samples(groups) == drawn, "seeded: a resumed run proves the same"


class _Accuser(Proof):
    """A proof that finds fault with what it is told to, without a network."""

    def __init__(self, *wrong: set[str]) -> None:
        self.wrong, self._watch = wrong, lambda *_: None

    def disproof(self, plan, number=0):  # noqa: ARG002 # it says the same of all inputs
        guilty = [names for names in self.wrong if names <= set(plan.removed["out"])]
        return f"{sorted(guilty[0])} is wrong" if guilty else None


def test_a_plan_that_fails_is_bisected_to_all_groups_that_are_to_blame():
    groups = [a_group(f"g{i}") for i in range(16)]
    proven, refuted = _Accuser({"g3"}, {"g11"}, {"g12"}).proven(groups)
    assert [group.name for group in proven] == [f"g{i}" for i in range(16) if i not in (3, 11, 12)]
    assert refuted == {name: f"['{name}'] is wrong" for name in ("g3", "g11", "g12")}


def test_groups_that_are_built_like_a_wrong_one_are_tried_next_and_judged_by_themselves(monkeypatch):
    groups = [a_group(f"block{i}.{name}", width) for i in range(8) for name, width in (("one", 16), ("two", 12))]
    wrong = [f"block{i}.one" for i in (1, 2, 3, 5, 6, 7)]
    proof, asked = _Accuser(*({name} for name in wrong)), []
    disproof = proof.disproof
    monkeypatch.setattr(proof, "disproof", lambda plan, number: (asked.append(plan), disproof(plan, number))[1])
    proven, refuted = proof.proven(groups)
    assert set(refuted) == set(wrong)
    assert {"block0.one", "block4.one"} <= {group.name for group in proven}
    assert len(asked) <= SAMPLES + 1 + 2 * 4 + 8, "one bisection of 16 groups, then those that are built alike"


def test_heads_of_further_layers_take_the_shared_plans_and_no_trials_of_their_own(monkeypatch):
    def comparisons(layers: int) -> int:
        torch.manual_seed(0)
        model, counted = Decoder(layers).eval(), []
        disproof = Proof.disproof
        with monkeypatch.context() as patch:
            patch.setattr(
                Proof, "disproof", lambda self, plan, number=0: (counted.append(plan), disproof(self, plan, number))[1]
            )
            found = find_groups(model, (torch.randint(0, 32, (2, 6)),))
        assert sum(group.name.endswith(".q") for group in found.groups) == layers
        return len(counted)

    assert comparisons(4) == comparisons(2)


def test_groups_that_are_wrong_together_only_lose_one_of_them():
    groups = [a_group(f"g{i}") for i in range(9)]
    _, refuted = _Accuser({"g2", "g7"}).proven(groups)
    assert len(refuted) == 1
    name, reason = refuted.popitem()
    assert name in {"g2", "g7"}
    assert reason.startswith("together with g")


class OnlyPositive(nn.Module):
    """A logarithm in front: noise as an input gives NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.body = residual()

    def forward(self, x):
        return self.body(torch.log(x))


def test_models_that_do_not_take_noise_are_proven_near_the_example():
    model = shaken(OnlyPositive())
    assert len(find_groups(model, (images().abs() + 0.1,)).groups) == 6


def batches_of(model: nn.Module, x: torch.Tensor, numbers: range) -> list[tuple[int, ...]]:
    """Shapes of what the model is given for trials of these numbers."""
    proof, seen = Proof(model, (x,)), []
    model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    for number in numbers:
        assert proof.disproof(Plan(), number) is None
    return seen[::2]  # each is given to the cut network and to the reference


def test_all_groups_together_are_proven_on_whole_inputs_and_the_rest_on_cheaper_ones():
    torch.manual_seed(0)
    convolutions = shaken(residual())
    assert batches_of(convolutions, torch.randn(1, 3, 128, 128), range(3)) == [(2, 3, 128, 128), *2 * [(2, 3, 32, 32)]]
    assert batches_of(convolutions, images(), range(3)) == [(2, 3, 8, 8), *2 * [(1, 3, 8, 8)]]
    assert batches_of(shaken(Squeezing()), images(), range(3)) == 3 * [(2, 3, 8, 8)], (
        "its output loses the batch of one"
    )


class Squeezing(nn.Module):
    """A single channel would be squeezed away with the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3), keepdim=True).squeeze())


def test_where_one_channel_is_too_few_two_stay():
    found = find_groups(shaken(Squeezing()), (images(),))
    assert {group.name: group.least for group in found.groups} == {"one": 1, "two": 2}
    check_random_cuts(shaken(Squeezing()), found, images(3))
