from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nets import images, network
from secateur import load_compressed
from secateur.compression.gates import Gated, gated, gated_blocks, set_threshold
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.storage import save_compressed
from secateur.compression.transforms.channels import without
from secateur.gating.placing import decisions, with_gates
from secateur.records import Candidate, CompressedModel, Plan


class Shifted(nn.Module):
    """A residual block of tokens with further arguments."""

    kind = "shifted"

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.runs = nn.Linear(6, 6), 0

    def forward(self, x, offset, *, scale=1.0):
        self.runs += 1
        return x + scale * self.linear(x) + offset


def opened_by_the_first_channel(block: nn.Module, width: int) -> Gated:
    """A gate that is open where the mean of the first channel is above 0."""
    made = Gated(block.eval(), width)
    with torch.no_grad():
        made.gate.weight[0, 0] = 1.0
        made.norm.weight.fill_(1.0)
        made.norm.bias.zero_()
    return made


def test_a_new_gate_changes_nothing_and_layers_keep_their_names():
    model = network("residual")
    before, conv = model(images()), model.layer1[0].conv1
    gated(model, {"layer1.0": 8})
    assert torch.equal(model(images()), before)
    assert model.get_submodule("layer1.0.conv1") is conv
    assert copy.deepcopy(model).get_submodule("layer1.0").conv1 is not conv
    with pytest.raises(AttributeError):
        _ = model.layer1[0].conv7


def test_a_sample_takes_its_own_path_and_a_block_that_nobody_wants_does_not_run():
    block = opened_by_the_first_channel(Shifted(), 6)
    x = torch.zeros(3, 4, 6)
    x[:, :, 0] = torch.tensor([1.0, -1.0, 2.0])[:, None]
    offset = torch.full((6,), 0.5)
    y = block(x, offset, scale=2.0)
    expected = x + 2 * block.linear(x) + 0.5
    assert torch.equal(y[[0, 2]], expected[[0, 2]])
    assert torch.equal(y[1], x[1])
    assert block.runs == 1
    block(x[1:2], offset)
    assert block.runs == 1, "closed for the only sample"
    assert block.kind == "shifted"


def test_the_threshold_opens_and_closes_all_gates():
    model = gated(network("residual"), {"layer1.0": 8, "layer2.1": 16})
    for logit, opens in ((-torch.inf, True), (5.0, False)):
        set_threshold(model, logit)
        found = decisions(model, images(3))
        assert {name: entry.tolist() for name, entry in found.items()} == {
            name: [opens] * 3 for name in ("layer1.0", "layer2.1")
        }


def test_in_training_a_gate_opens_by_chance_and_learns():
    torch.manual_seed(0)
    block = opened_by_the_first_channel(nn.Sequential(nn.Linear(6, 6)), 6).train()
    x = torch.zeros(4000, 6)
    x[:, 0] = torch.tensor([0.0, 2.0]).repeat(2000)
    y = block(x)
    ran = (y != x).any(1)
    chance = torch.sigmoid(torch.tensor([-1.0, 1.0]))
    assert block.opened[:2].tolist() == [0, 1]
    assert abs(ran[::2].float().mean() - chance[0]) < 0.04
    assert abs(ran[1::2].float().mean() - chance[1]) < 0.04
    y.sum().backward()
    assert block.norm.weight.grad.abs().sum() > 0


@pytest.fixture(scope="module")
def found():
    return find_groups(network("residual"), (images(),))


def test_a_plan_puts_gates_before_the_blocks_that_stay_after_everything_else(found, tmp_path):
    model = network("residual")
    plan = without(found.groups, {g.name: g.removable[::2] for g in found.groups})
    whole = with_gates(plan, model, found.blocks, (images(),))
    assert whole.gates == {"layer1.0": 4, "layer1.1": 4, "layer2.1": 8}
    assert whole.key != plan.key
    cut = apply(model, whole)
    assert list(gated_blocks(cut)) == list(whole.gates)
    assert torch.allclose(cut(images()), reference(model, whole)(images()), atol=1e-5)
    with torch.no_grad():
        for number, block in enumerate(gated_blocks(cut).values()):
            block.gate.weight.fill_(number - 1.0)
    save_compressed(
        CompressedModel(Candidate({}), whole, cut), model, {"factory": "somewhere:workload"}, tmp_path / "c"
    )
    loaded = load_compressed(tmp_path / "c", model)
    assert torch.equal(loaded(images(3)), cut(images(3)))
    assert list(gated_blocks(loaded)) == list(whole.gates)


def test_a_block_that_is_left_out_gets_no_gate(found):
    from secateur.records import Bypass

    plan = with_gates(Plan((Bypass("layer1.1"),)), network("residual"), found.blocks, (images(),))
    assert list(plan.gates) == ["layer1.0", "layer2.1"]
