from __future__ import annotations

import pytest
import torch

from secateur.compression.criteria import obs
from secateur.compression.criteria.obs import Reading, losses_in_order


def reading(weight, gram, size=1) -> Reading:
    count = weight.shape[1] // size
    return Reading(weight, gram, torch.arange(count * size).view(count, size))


def test_by_hand():
    """Inputs that say nothing of each other: a channel costs its weights' square times its power. 1·4 + 1·4, 9·1, 4·1; of 21."""
    weight = torch.tensor([[2.0, 3.0, 2.0], [2.0, 0.0, 0.0]])
    losses = losses_in_order([reading(weight, torch.diag(torch.tensor([1.0, 1.0, 1.0])))], range(3), 3)
    ridge = 1 + obs.RIDGE
    torch.testing.assert_close(losses, torch.tensor([12.0, 21.0, 4.0]) / 21 * ridge)


def test_a_copy_costs_nothing_until_the_other_is_gone(monkeypatch):
    monkeypatch.setattr(obs, "RIDGE", 1e-9)
    gram = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    losses = losses_in_order([reading(torch.tensor([[3.0, 1.0, 2.0]]), gram)], range(3), 3)
    assert float(losses[:2].min()) < 1e-6  # by magnitude the second would go, and then the third
    assert losses.argsort().tolist()[1] == 2
    torch.testing.assert_close(losses.max(), torch.tensor(1.0), rtol=1e-4, atol=1e-4)


def random_reading(outputs: int, channels: int, size: int, seed: int) -> Reading:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(200, channels * size, generator=generator) @ torch.randn(
        channels * size, channels * size, generator=generator
    )
    return reading(torch.randn(outputs, channels * size, generator=generator), rows.mT @ rows / 200, size)


@pytest.mark.parametrize("size", [1, 4])
def test_each_loss_is_the_least_that_any_channel_costs_with_all_other_weights_refitted(size):
    """Brute force: the ridge regression's loss without the channels gone so far and each other one."""
    parts = [random_reading(5, 6, size, seed) for seed in (0, 1)]

    def loss(part: Reading, gone: list[int]) -> torch.Tensor:
        gram = part.gram.double()
        gram = gram + obs.RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        weight = part.weight.double()
        stay = [int(c) for channel in range(6) if channel not in gone for c in part.blocks[channel]]
        best = weight @ gram[:, stay] @ torch.linalg.inv(gram[stay][:, stay])
        difference = weight.clone()
        difference[:, stay] -= best
        energy = ((weight @ part.gram.double()) * weight).sum()
        return ((difference @ gram) * difference).sum() / energy

    found = losses_in_order(parts, range(6), 6)
    gone: list[int] = []
    for channel in found.argsort().tolist():
        costs = {c: float(sum(loss(p, [*gone, c]) for p in parts)) for c in range(6) if c not in gone}
        assert costs[channel] == pytest.approx(min(costs.values()), rel=1e-4)
        assert float(found[channel]) == pytest.approx(costs[channel], rel=1e-4)
        gone.append(channel)


def test_pinned_channels_come_last_and_a_channel_may_have_fewer_columns_than_others():
    part = random_reading(5, 8, 1, 2)
    blocks = torch.tensor([[0, 1], [2, -1], [3, -1], [-1, -1], [4, 5], [6, 7]])
    losses = losses_in_order([Reading(part.weight, part.gram, blocks)], (1, 2, 3, 4), 6)
    assert float(losses[3]) == 0.0  # nothing reads it
    assert losses[0] == losses[5] == losses[[1, 2, 4]].max()


def test_layers_without_any_input_are_no_reason_to_fail():
    dead = Reading(torch.ones(2, 3), torch.zeros(3, 3), torch.arange(3)[:, None])
    assert losses_in_order([dead], range(3), 3).tolist() == [0.0, 0.0, 0.0]
