"""Derivatives that criteria of single weights see: of the loss, of its gradient, or of a network's flow.

Each function takes a model, layer → weight, and the workload; it returns layer → derivative, float32, without the layers that none
reaches, and leaves the model as it was, also where it raises. Each raises NotFinite where the derivatives mean nothing, and
WorkloadError where the model cannot be run for them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.compression.criteria.weights import Gradients
from secateur.compression.saliency import BATCH, BATCHES, backward_passes
from secateur.errors import NotFinite
from secateur.records import Workload
from secateur.workloads.calls import calling
from secateur.workloads.pytrees import call, mapped


def loss_gradients(model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload) -> dict[str, Tensor]:
    """The gradient of the loss, a mean over the batches of calibration data."""
    with _summed(model, weights) as sums:
        passes = sum(1 for _ in backward_passes(model, workload, BATCH * BATCHES, BATCH))
    return {name: total.div_(passes) for name, total in sums.items()}


def hessian_products(model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload) -> dict[str, Tensor]:
    """H g: the loss's Hessian times its gradient, by a second backward pass through each of the same batches.

    In a unit of the network's: the root mean square of w · (H g) over all weights is 1.
    """
    gradients = loss_gradients(model, weights, workload)
    chosen = {name: weights[name] for name in gradients}

    def twice(loss: Tensor) -> None:
        with calling("The second derivative of the loss (criteria such as 'weights/grasp' need it)"):
            once = torch.autograd.grad(loss, [*chosen.values()], create_graph=True, allow_unused=True)
            along = [(own * gradients[name]).sum() for name, own in zip(chosen, once, strict=True) if own is not None]
            slope = torch.stack(along).sum()
            if slope.requires_grad:
                slope.backward(inputs=[*chosen.values()])  # type: ignore[no-untyped-call] # torch does not annotate it

    with _summed(model, weights) as sums, sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        for _ in backward_passes(model, workload, BATCH * BATCHES, BATCH, twice):
            pass
    squares = sum(float((weights[name].detach() * own).square().sum(dtype=torch.float64)) for name, own in sums.items())
    scale = math.sqrt(squares / max(1, sum(weight.numel() for weight in weights.values())))
    return {name: own.div_(scale or 1.0) for name, own in sums.items()}


def flow_gradients(model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload) -> dict[str, Tensor]:
    """Of R, the sum of the outputs for inputs of ones, over |R|: in the network with the absolute values of all its parameters.

    In double precision, in which R, a product over layers, does not overflow. Floating inputs have the example's shape; others,
    token ids say, are the example's. Batch norms take their stored variance and no mean.
    """
    inputs = mapped(
        lambda x: torch.ones_like(x, dtype=torch.float64) if x.is_floating_point() else x, workload.example_inputs
    )
    with _summed(model, weights) as sums, _absolute(model.eval()), torch.enable_grad():
        with calling("The model in double precision, with ones as inputs (for criteria such as 'weights/synflow')"):
            flow = workload.output(call(model, inputs)).sum()
        if not torch.isfinite(flow) or flow == 0:
            raise NotFinite(
                f"The flow of the dense model, its outputs for ones with absolute weights, is {flow.item()}."
            )
        (flow / flow.detach().abs()).backward(inputs=[*weights.values()])  # type: ignore[no-untyped-call] # as above
    return sums


GRADIENTS: Mapping[Gradients, Callable[[nn.Module, Mapping[str, nn.Parameter], Workload], dict[str, Tensor]]] = {
    "loss": loss_gradients,
    "hessian product": hessian_products,
    "synaptic flow": flow_gradients,
}


@contextmanager
def _summed(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """The sum of what backward passes give each weight; they keep nothing themselves."""
    sums: dict[str, Tensor] = {}

    def add(name: str, weight: Tensor) -> None:
        given, weight.grad = weight.grad, None
        assert given is not None  # noqa: S101 # the hook is called when it is there
        sums[name] = sums[name].add_(given) if name in sums else given.float()

    hooks = [
        weight.register_post_accumulate_grad_hook(functools.partial(add, name))  # type: ignore[no-untyped-call] # as above
        for name, weight in weights.items()
    ]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)


@contextmanager
def _absolute(model: nn.Module) -> Iterator[None]:
    """All parameters as absolute values, and every floating tensor in double precision; means of batch norms are 0."""
    kept = [(tensor, tensor.data) for tensor in chain(model.parameters(), model.buffers())]
    try:
        for tensor, data in kept:
            if data.is_floating_point():
                tensor.data = data.abs().double() if isinstance(tensor, nn.Parameter) else data.double()
        for layer in model.modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                layer.running_mean.zero_()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data
