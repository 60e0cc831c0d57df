from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from secateur.compression.weight_gradients import _edges, flow_gradients, hessian_products, loss_gradients
from secateur.errors import NotFinite, WorkloadError
from secateur.testing.examples import workload

X = torch.randn(64, 2, generator=torch.Generator().manual_seed(3))
Y = X @ torch.tensor([[1.0], [2.0]])


def made(model, x=X, y=Y, loss=nn.functional.mse_loss):
    """A workload of a network, its calibration data these samples."""
    data = dataclasses.replace(workload().data, calibration=TensorDataset(x, y))
    return dataclasses.replace(workload(), build_model=lambda: model, example_inputs=(x[:2],), data=data, loss=loss)


def weights_in(model):
    return {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def linear(*rows, bias=None):
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def two_layers(*between):
    return nn.Sequential(linear([1.0, -2.0], [-3.0, 0.5], bias=[-1.0, 2.0]), *between, linear([2.0, -4.0])).eval()


def test_flow_by_hand():
    model = two_layers(nn.ReLU())
    found = flow_gradients(model, weights_in(model), made(model))
    # hidden: 1 + 2 + 1 = 4 and 3 + .5 + 2 = 5.5; R = 2 · 4 + 4 · 5.5 = 30, of each of the two samples
    torch.testing.assert_close(found["0"], torch.tensor([[2.0, 2.0], [4.0, 4.0]]) / 30)
    torch.testing.assert_close(found["2"], torch.tensor([[4.0, 5.5]]) / 30)


def test_flow_through_a_batch_norm_has_its_scale_and_no_mean():
    norm = nn.BatchNorm1d(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-3.0, 1.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0]))
        norm.running_var.copy_(torch.tensor([4.0, 1.0]))
        norm.running_mean.fill_(100.0)
    model = two_layers(norm, nn.ReLU())
    found = flow_gradients(model, weights_in(model), made(model))
    # hidden: 4 · 3/2 + 1 = 7 and 5.5; R = 14 + 22
    torch.testing.assert_close(found["0"], torch.tensor([[3.0, 3.0], [4.0, 4.0]]) / 36)
    torch.testing.assert_close(found["3"], torch.tensor([[7.0, 5.5]]) / 36)


def test_each_layer_shares_the_flow_where_single_precision_overflows():
    layers = [linear([1e15, -1e15], [1e15, 2e15]) for _ in range(4)]
    model = nn.Sequential(*layers).eval()
    found = flow_gradients(model, weights_in(model), made(model))
    for name, weight in weights_in(model).items():
        assert float((weight.detach() * found[name]).abs().sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("failing", ["nowhere", "in the model", "in double precision", "without a flow"])
def test_the_network_is_left_bit_for_bit(failing):
    class Fails(nn.Module):
        def forward(self, x):
            if failing == "in the model" or x.dtype == torch.float64:
                raise ValueError("no")
            return x * {"without a flow": 0, "in double precision": 1e20}.get(failing, 1)

    model = two_layers(nn.BatchNorm1d(2), Fails())
    with torch.no_grad():
        model[0].weight[0, 0] = -0.0
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    if failing == "nowhere":
        flow_gradients(model, weights_in(model), made(model))
    else:
        expected = NotFinite if failing == "without a flow" else WorkloadError
        said = {"in the model": "ones as inputs", "without a flow": "flow of the dense model"}.get(failing, failing)
        with pytest.raises(expected, match=said):
            flow_gradients(model, weights_in(model), made(model))
    for name, tensor in model.state_dict().items():
        place, value = before[name]
        assert (tensor.data_ptr(), tensor.dtype) == (place, value.dtype)
        assert torch.equal(tensor, value)
        assert torch.equal(torch.signbit(tensor), torch.signbit(value))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hessian_products_of_least_squares():
    model = nn.Sequential(linear([1.0, -1.0])).eval()
    found = hessian_products(model, weights_in(model), made(model))["0"]
    w = model[0].weight.detach()
    hessian = 2 * X.T @ X / len(X)
    expected = (w @ X.T - Y.T) @ X * (2 / len(X)) @ hessian
    scale = (w * expected).square().mean().sqrt()
    torch.testing.assert_close(found, expected / scale)


class Folded(nn.Module):
    """A convolution and a linear layer that runs twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice = nn.Conv1d(1, 2, 1), nn.Linear(2, 2)

    def forward(self, x):
        x = self.first(x[:, None]).tanh().mean(1)
        return self.twice(self.twice(x).tanh())[:, :1]


@pytest.mark.parametrize("model", [two_layers(nn.Tanh()), Folded()])
def test_hessian_products_of_a_network(model):
    """Against the whole Hessian."""
    weights = {name: own.weight for name, own in model.named_modules() if isinstance(own, nn.Linear | nn.Conv1d)}
    found = hessian_products(model, weights, made(model))
    names = [f"{name}.weight" for name in weights]

    def loss(*values):
        out = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (X,))
        return nn.functional.mse_loss(out, Y)

    values = tuple(weight.detach() for weight in weights.values())
    flat = torch.cat([g.flatten() for g in torch.autograd.functional.jacobian(loss, values)])
    blocks = torch.autograd.functional.hessian(loss, values)
    hessian = torch.cat(
        [torch.cat([b.reshape(v.numel(), -1) for b in row], 1) for v, row in zip(values, blocks, strict=True)]
    )
    expected = hessian @ flat
    scale = (torch.cat([v.flatten() for v in values]) * expected).square().mean().sqrt()
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in weights]), expected / scale)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_second_backward_pass_holds_no_part_of_a_weights_derivative():
    """What is found of a weight is added at once: only zeros reach it, from however many places."""
    model = Folded()
    inputs, caught = weights_in(model) | {"first": model.first.weight}, {}
    gradients = torch.autograd.grad(nn.functional.mse_loss(model(X), Y), [*inputs.values()], create_graph=True)
    slope = sum(gradient.square().sum() / 2 for gradient in gradients)
    expected = torch.autograd.grad(slope, [*inputs.values()], retain_graph=True)
    for edge in _edges(slope, inputs):
        edge.caught(caught)
    slope.backward(inputs=[*inputs.values()])
    for (name, weight), own in zip(inputs.items(), expected, strict=True):
        torch.testing.assert_close(caught[name], own)
        assert not weight.grad.any()


def test_fused_attention_has_a_second_derivative_too():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.out = nn.Linear(2, 8), nn.Linear(8, 1)

        def forward(self, x):
            q = self.query(x)[:, None, None].expand(-1, 1, 3, -1)
            return self.out(nn.functional.scaled_dot_product_attention(q, q, q).mean((1, 2)))

    torch.manual_seed(0)
    model = Attending().eval()
    assert all(own.abs().max() > 0 for own in hessian_products(model, weights_in(model), made(model)).values())


def test_layers_that_are_not_reached_have_no_derivative():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = linear([1.0, 1.0]), linear([1.0, 1.0])

        def forward(self, x):
            return self.used(x)

    model = Part().eval()
    for derivatives in (loss_gradients, hessian_products, flow_gradients):
        assert derivatives(model, weights_in(model), made(model)).keys() == {"used"}
