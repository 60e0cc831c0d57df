from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.utils.data import TensorDataset

from nets import images, network, shaken
from secateur.compression.block_saliency import block_saliencies
from secateur.compression.compensation.gram import grams_of
from secateur.compression.compensation.least_squares import LeastSquares
from secateur.compression.compensation.sequential import dense_answers, refit_in_order
from secateur.compression.costs import layer_costs, parameter_count, parameters_after, within_reach
from secateur.compression.criteria.blocks import BLOCK_METHODS, BlockMethod, BlockPass, influence, taylor
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, is_bypassed, reference, united
from secateur.compression.resolution import resolve
from secateur.compression.transforms.channels import without
from secateur.errors import NotFinite, WorkloadError
from secateur.records import Bypass, Candidate, DataRoles, Edit, Group, Mask, Plan, Remove, Workload
from secateur.testing.examples import workload
from secateur.testing.transforms import random_scores
from secateur.workloads.scores import top1
from secateur.workloads.transformer import Sizes, VisionTransformer


class Gated(nn.Module):
    """A residual block with a gate inside, which gives the shape that it reads and is no residual block itself."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.gate = Gate()

    def forward(self, x, offset=0.0):
        return x + self.gate(self.convolution(x)) + offset


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.weigh(x)


class Looks(nn.Module):
    """Its forward() needs the layers of one block, and calls the other one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.needed, self.twice, self.free = nn.Conv2d(3, 4, 1), Gated(), Gated(), Gated()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.free(self.twice(self.twice(self.needed(self.stem(x)))), 0.0)
        return self.head(x.mean((2, 3)) + 0 * self.needed.convolution[0].weight.sum())


def vision_transformer() -> nn.Module:
    torch.manual_seed(0)
    return shaken(VisionTransformer(Sizes(8, 3, 2, 16), size=8, patch=4, channels=3, classes=5))


def blocks_of(model):
    return [(block.name, block.layer_type) for block in find_groups(model, (images(),)).blocks]


def test_blocks_are_the_innermost_modules_past_whose_layers_the_input_goes_on():
    names = ["layer1.0", "layer1.1", "layer2.1"]
    assert blocks_of(network("residual")) == [(name, "BasicBlock") for name in names], "no stage, none that halves"
    assert blocks_of(vision_transformer()) == [(f"blocks.{i}", "Block") for i in range(3)], "no attention by itself"
    assert blocks_of(network("VGG")) == []


def test_a_block_that_forward_calls_twice_or_looks_into_is_none():
    torch.manual_seed(0)
    assert blocks_of(Looks().eval()) == [("free", "Gated")], "neither is a gate, which gives half of what it reads"


def test_bypasses_survive_json_and_have_a_key_of_their_own():
    plan = Plan((Bypass("a"), Remove("b", "out", (1,)), Mask("c", (0,), "eA==")))
    adapter = TypeAdapter(Plan)
    assert adapter.validate_json(adapter.dump_json(plan)) == plan
    assert plan.key != Plan(plan.steps[1:]).key
    assert plan.bypassed == ("a",)


def test_steps_in_a_block_that_is_left_out_are_left_out_with_it():
    inside = (Remove("a.0", "out", (1,)), Remove("a.0:gain:1", "out", (1,)), Mask("a.0.b", (0,), ""))
    beside = (Remove("ab", "out", (1,)), Mask("b", (0,), ""))
    plan = united((*inside, *beside, Bypass("a")))
    assert plan.steps == (Bypass("a"), *beside)
    assert plan.leaves_out("a")
    assert not plan.leaves_out("ab")
    assert plan.losing == ("ab", "b")


@pytest.mark.parametrize("model", [network("residual"), vision_transformer()], ids=["residual", "transformer"])
def test_blocks_leave_together_with_channels_at_costs_known_before(model):
    """In the transformer a block has matrix products that belong to no layer."""
    found = find_groups(model, (images(),))
    last = found.blocks[-1]
    channels = without(found.groups, {group.name: group.removable[::2] for group in found.groups})
    plan = united((*channels.steps, Bypass(last.name)))
    smaller, x = apply(model, plan), images()
    torch.testing.assert_close(smaller(x), reference(model, plan)(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(smaller(x), apply(model, channels)(x), atol=1e-3)
    assert is_bypassed(smaller)
    assert not is_bypassed(model)
    assert not [name for name in smaller.state_dict() if name.startswith(f"{last.name}.")]
    assert parameters_after(model, plan) == parameter_count(smaller)
    alone = Plan((Bypass(last.name),))
    assert (
        found.costs.after(alone) == layer_costs(apply(model, alone), (images(),)).total == found.costs.total - last.macs
    )
    assert parameters_after(model, alone) == parameter_count(model) - last.parameters
    reached = within_reach(model, [last], found.costs)
    assert reached[0] == pytest.approx(last.parameters / parameter_count(model))


def test_nothing_is_masked_in_a_block_that_is_left_out():
    model = network("residual")
    found = find_groups(model, (images(),))
    groups = [*found.groups, *found.fixed, *found.blocks]
    scores = {group.name: random_scores(group, torch.Generator().manual_seed(0)) for group in groups}
    for level, transform in ((500, "weights"), ("2:4", "n_m"), ("2x1@500", "blocks")):
        edits = {group.name: (Edit(transform, level, "random"),) for group in groups if not group.block}
        edits |= {block.name: (Edit("depth", 0, "random"),) for block in found.blocks}
        plan = resolve(Candidate(edits), groups, scores)
        assert plan.bypassed == tuple(block.name for block in found.blocks)
        assert plan.masked
        assert not any(plan.leaves_out(name) for name in plan.masked)
        assert parameters_after(model, plan) == parameter_count(apply(model, plan))


def test_what_is_left_is_refitted():
    made = workload()
    model = made.build_model()
    found = find_groups(model, made.example_inputs)
    channels = without(found.groups, {group.name: group.removable[::2] for group in found.groups})
    plan = united((*channels.steps, *(Bypass(block.name) for block in found.blocks)))
    grams = grams_of(model, found.groups, made, 32)
    x = images(32)
    module = apply(model, plan)
    LeastSquares(model, grams).refit(module, plan)
    ordered = apply(model, plan)
    refit_in_order(ordered, model, plan, dense_answers(model, list(grams), x))
    with torch.no_grad():
        wanted, before = model(x), apply(model, plan)(x)
        assert (ordered(x) - wanted).norm() < (before - wanted).norm()
        assert not torch.equal(module(x), before)


def test_influence_by_hand():
    inputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    outputs = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [4.0, 3.0]])
    torch.testing.assert_close(influence(BlockPass("", inputs, outputs)), torch.tensor([0.0, 1.0, 2.0, 0.04]))


def test_taylor_by_hand():
    """What the loss loses or gains to first order where the output becomes the input: 3 − 2, and 1 − 1."""
    inputs, outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 2.0], [2.0, 1.0]])
    gradients = torch.tensor([[3.0, -1.0], [1.0, -1.0]])
    assert taylor(BlockPass("", inputs, outputs, gradients)).tolist() == [1.0, 0.0]


class Adds(nn.Module):
    """Gives x + w x."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        self.layer.weight.data = torch.tensor(weights, dtype=torch.float32).view(2, 2)

    def forward(self, x):
        return x + self.layer(x)


TWO = [Group(name, "Adds", (), 1, (), 4, 4, block=True) for name in "01"]


def of_two_blocks() -> Workload:
    """(1, 0) → (1, 1) → (3, 1); (0, 1) → (0, 1) → (2, 1)."""
    model = nn.Sequential(Adds(0, 0, 1, 0), Adds(0, 2, 0, 0), nn.Linear(2, 2))
    data = TensorDataset(torch.eye(2), torch.zeros(2, dtype=torch.long))
    loss = nn.functional.cross_entropy
    return Workload("two", lambda: model, (torch.eye(2),), DataRoles(data, data, data, data, data), loss, top1)


def test_a_block_has_the_mean_over_all_calibration_samples():
    made = of_two_blocks()
    scores = block_saliencies(made.build_model(), TWO, ["influence", "random"], made)
    first = ((1 - 0.5**0.5) + 0.0) / 2
    second = ((1 - 4 / 20**0.5) + (1 - 1 / 5**0.5)) / 2
    assert scores["0"]["depth/influence"].tolist() == pytest.approx([first], abs=1e-6)
    assert scores["1"]["depth/influence"].tolist() == pytest.approx([second], abs=1e-6)
    assert scores["0"]["depth/random"] != scores["1"]["depth/random"]


def test_taylor_is_the_change_of_the_loss_without_the_block_where_that_is_linear():
    made = replace(of_two_blocks(), loss=lambda outputs, _: (outputs * torch.tensor([1.0, -3.0])).sum(1).mean())
    model = made.build_model()
    scores = block_saliencies(model, TWO, ["taylor", "influence"], made)
    (x,) = made.example_inputs
    with torch.no_grad():
        each = [made.loss(model(row[None]), None) for row in x]
        for name in "01":
            without_it = apply(model, Plan((Bypass(name),)))
            changes = [abs(made.loss(without_it(row[None]), None) - loss) for row, loss in zip(x, each, strict=True)]
            torch.testing.assert_close(scores[name]["depth/taylor"], torch.stack(changes).mean()[None])


def test_a_loss_that_is_not_finite_leaves_taylor_out_and_the_others_stay():
    made = replace(of_two_blocks(), loss=lambda outputs, _: outputs.mean() / 0)
    told: dict[str, NotFinite] = {}
    scores = block_saliencies(made.build_model(), TWO, ["taylor", "influence"], made, told.__setitem__)
    assert [(name, str(error).partition(". ")[0]) for name, error in told.items()] == [
        ("depth/taylor", "The loss of the dense model on calibration sample 0 is inf")
    ]
    assert [own.keys() for own in scores.values()] == [{"depth/influence"}] * 2


def test_wrong_scores_are_refused_and_those_that_are_not_finite_left_out(monkeypatch):
    made = of_two_blocks()
    for score, message in (
        (lambda seen: -torch.ones(len(seen.inputs)), "gives -1 for sample 0 of '0'"),
        (lambda _: torch.ones(5), r"\(2,\)"),
    ):
        monkeypatch.setitem(BLOCK_METHODS._own, "wrong", BlockMethod(score, ""))
        with pytest.raises(WorkloadError, match=message):
            block_saliencies(made.build_model(), TWO, ["wrong"], made)
    monkeypatch.setitem(BLOCK_METHODS._own, "wrong", BlockMethod(lambda seen: seen.inputs[:, 0] / 0, ""))
    told: dict[str, NotFinite] = {}
    scores = block_saliencies(made.build_model(), TWO, ["wrong", "influence"], made, told.__setitem__)
    assert told.keys() == {"depth/wrong"}
    assert [own.keys() for own in scores.values()] == [{"depth/influence"}] * 2
