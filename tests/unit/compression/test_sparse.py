from __future__ import annotations

import torch

from secateur.compression.compensation.sparse import RIDGE, made_up_for


def problem(groups=2, columns=24, out=5, rows=400):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, rows, columns, generator=generator)
    x = x @ (torch.eye(columns) + 0.5 * torch.randn(groups, columns, columns, generator=generator) / columns**0.5)
    weight = torch.randn(groups, out, columns, generator=generator)
    zeros = torch.rand(weight.shape, generator=generator) < 0.5
    return weight, x.mT @ x / rows, zeros


def test_it_is_least_squares_with_a_mask_for_each_row():
    """Against each row solved by itself."""
    weight, gram, zeros = problem()
    made = made_up_for(weight, gram, zeros)
    assert (made[zeros] == 0).all()
    for group, own in enumerate(gram.double()):
        ridged = own + RIDGE * own.diagonal().mean() * torch.eye(len(own))
        for row in range(weight.shape[1]):
            gone, stays = zeros[group, row], ~zeros[group, row]
            lost = ridged[stays][:, gone] @ weight[group, row, gone].double()
            expected = weight[group, row, stays].double() + torch.linalg.solve(ridged[stays][:, stays], lost)
            torch.testing.assert_close(made[group, row, stays].double(), expected, rtol=1e-2, atol=1e-2)


def test_without_zeros_nothing_moves_and_inputs_that_are_all_zero_do_no_harm():
    weight, gram, zeros = problem()
    assert torch.equal(made_up_for(weight, gram, torch.zeros_like(zeros)), weight)
    assert torch.equal(made_up_for(weight, torch.zeros_like(gram), zeros), weight.masked_fill(zeros, 0.0))
    every = torch.ones_like(zeros)
    assert not made_up_for(weight, gram, every).any()
