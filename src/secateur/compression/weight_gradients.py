"""Derivatives that criteria of single weights see: of the loss, of its gradient, or of a network's flow.

Each function takes a model, layer → weight, and the workload; it returns layer → derivative, float32, without the layers that none
reaches, and leaves the model as it was, also where it raises. Each raises NotFinite where the derivatives mean nothing, and
WorkloadError where the model cannot be run for them.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.compression.criteria.weights import Gradients
from secateur.compression.saliency import BATCH, BATCHES, backward_passes
from secateur.compression.tensor_files import TensorFile
from secateur.errors import NotFinite
from secateur.memory import give_back
from secateur.records import Workload
from secateur.workloads.calls import calling
from secateur.workloads.pytrees import call, mapped

LARGEST_FLOW = 1e15
"""Up to which single precision is enough, there and back: gradients by late activations are as small as the flow is large."""


def loss_gradients(model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload) -> dict[str, Tensor]:
    """The gradient of the loss, a mean over the batches of calibration data."""

    def once(loss: Tensor) -> None:
        loss.backward(inputs=[*weights.values()])  # type: ignore[no-untyped-call] # torch does not annotate it
        give_back()

    with _summed(model, weights) as sums:
        passes = sum(1 for _ in backward_passes(model, workload, BATCH * BATCHES, BATCH, once))
    return {name: total.div_(passes) for name, total in sums.items()}


def hessian_products(model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload) -> dict[str, Tensor]:
    """H g: the loss's Hessian times its gradient, by a second backward pass through each of the same batches.

    In a unit of the network's: the root mean square of w · (H g) over all weights is 1. The gradient waits in a temporary file: in
    memory is no tensor of the weights' size but the sum of the products. Raises StateError where the disk does not take it.
    """
    with TemporaryDirectory(prefix="secateur-") as folder:
        directions = TensorFile.written(
            Path(folder) / "gradient",
            {name: own.contiguous() for name, own in loss_gradients(model, weights, workload).items()},
        )
        products = _products(model, {name: weights[name] for name in directions}, workload, directions)
    squares = sum(
        float((weights[name].detach() * own).square().sum(dtype=torch.float64)) for name, own in products.items()
    )
    scale = math.sqrt(squares / max(1, sum(weight.numel() for weight in weights.values())))
    return {name: own.div_(scale or 1.0) for name, own in products.items()}


def _products(
    model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload, directions: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The sum over batches of each one's Hessian times the directions."""
    sums: dict[str, Tensor] = {}
    slopes: list[Tensor] = []

    def project(name: str, weight: Tensor) -> None:
        slopes.append(_Slope.apply(_taken(weight), directions, name))  # type: ignore[no-untyped-call] # as below

    def forget(_: str, weight: Tensor) -> None:
        weight.grad = None  # zeros

    def twice(loss: Tensor) -> None:
        with calling("The second derivative of the loss (criteria such as 'weights/grasp' need it)"):
            with _hooked(weights, project), warnings.catch_warnings():
                # of a cycle that gradients which stay would make
                warnings.filterwarnings("ignore", message="Using backward.*create_graph")
                loss.backward(inputs=[*weights.values()], create_graph=True)  # type: ignore[no-untyped-call] # torch does not annotate it
            slope = torch.stack(slopes).sum()
            slopes.clear()
            if slope.requires_grad:
                for edge in _edges(slope, weights):
                    edge.caught(sums)
                with _hooked(weights, forget):
                    slope.backward(inputs=[*weights.values()])  # type: ignore[no-untyped-call] # as above
        give_back()

    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        for _ in backward_passes(model, workload, BATCH * BATCHES, BATCH, twice):
            pass
    return sums


class _Slope(torch.autograd.Function):
    """A gradient's product with its direction, 0-dimensional; the direction is read anew for the derivative."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, directions: Mapping[str, Tensor], name: str) -> Tensor:
        """gradient: of the layer of this name."""
        ctx.directions, ctx.layer = directions, name
        return (gradient * directions[name]).sum()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        """The direction, times what comes from outside."""
        return outer[0] * ctx.directions[ctx.layer], None, None


@dataclass(frozen=True)
class _Edge:
    """Where a graph finds a part of the derivative by a weight.

    layer: of the weight. node: in front of it. place: among what the node finds. transposed: as linear layers read their weight.
    """

    layer: str
    node: Node
    place: int
    transposed: bool

    def caught(self, sums: dict[str, Tensor]) -> None:
        """Add what is found here when the graph is run, and hand on zeros without memory.

        A weight counts in the gradient and in the loss: torch holds what one has of every weight till the other is through.
        """

        def catch(found: Sequence[Tensor | None], _: Sequence[Tensor | None]) -> tuple[Tensor | None, ...] | None:
            part = found[self.place]
            if part is None:
                return None
            _add(sums, self.layer, part.t() if self.transposed else part)
            return (*found[: self.place], part.new_zeros(()).expand_as(part), *found[self.place + 1 :])

        self.node.register_hook(catch)


def _edges(behind: Tensor, weights: Mapping[str, nn.Parameter]) -> Iterator[_Edge]:
    """Where the graph behind a tensor finds derivatives by weights."""
    layers = {id(weight): name for name, weight in weights.items()}
    waiting = [node for node in (behind.grad_fn,) if node is not None]
    seen = {*waiting}
    while waiting:
        node = waiting.pop()
        for place, (following, _) in enumerate(node.next_functions):
            if following is None:
                continue
            transposed = type(following).__name__ == "TBackward0"
            leaf = following.next_functions[0][0] if transposed else following
            layer = layers.get(id(getattr(leaf, "variable", None)))
            if layer is not None:
                yield _Edge(layer, node, place, transposed)
            elif following not in seen:
                seen.add(following)
                waiting.append(following)


def flow_gradients(model: nn.Module, weights: Mapping[str, nn.Parameter], workload: Workload) -> dict[str, Tensor]:
    """Of R, the sum of the outputs for inputs of ones, over |R|: in the network with the absolute values of all its parameters.

    R is a product over layers: where it is beyond `LARGEST_FLOW` it is found again in double precision, for which every floating
    tensor is copied. Floating inputs have the example's shape; others, token ids say, are the example's. Batch norms take their
    stored variance and no mean.
    """
    with _summed(model.eval(), weights) as sums, _absolute(model), torch.enable_grad():
        flow = _flow(model, workload)
        if flow.abs() < LARGEST_FLOW:
            _share_out(flow, weights)
        else:
            del flow  # with all that it has been computed from
            with _doubled(model):
                _share_out(_flow(model, workload, torch.float64), weights)
    return sums


def _flow(model: nn.Module, workload: Workload, dtype: torch.dtype | None = None) -> Tensor:
    """The sum of the outputs for inputs of ones. dtype: of the floating inputs, where it is not the example's."""
    inputs = mapped(lambda x: torch.ones_like(x, dtype=dtype) if x.is_floating_point() else x, workload.example_inputs)
    with calling(
        f"The model with ones as inputs{' in double precision' if dtype else ''} (for criteria such as 'weights/synflow')"
    ):
        return workload.output(call(model, inputs)).sum()


def _share_out(flow: Tensor, weights: Mapping[str, nn.Parameter]) -> None:
    if not torch.isfinite(flow) or flow == 0:
        raise NotFinite(f"The flow of the dense model, its outputs for ones with absolute weights, is {flow.item()}.")
    (flow / flow.detach().abs()).backward(inputs=[*weights.values()])  # type: ignore[no-untyped-call] # as above


GRADIENTS: Mapping[Gradients, Callable[[nn.Module, Mapping[str, nn.Parameter], Workload], dict[str, Tensor]]] = {
    "loss": loss_gradients,
    "hessian product": hessian_products,
    "synaptic flow": flow_gradients,
}


@contextmanager
def _hooked(weights: Mapping[str, nn.Parameter], hook: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call with a layer's name and its weight when a backward pass has left the weight's gradient there."""
    hooks = [
        weight.register_post_accumulate_grad_hook(functools.partial(hook, name))  # type: ignore[no-untyped-call] # as above
        for name, weight in weights.items()
    ]
    try:
        yield
    finally:
        for registered in hooks:
            registered.remove()


@contextmanager
def _summed(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """The sum of what backward passes give each weight; they keep nothing themselves."""
    sums: dict[str, Tensor] = {}
    try:
        with _hooked(weights, lambda name, weight: _add(sums, name, _taken(weight))):
            yield sums
    finally:
        model.zero_grad(set_to_none=True)


def _add(sums: dict[str, Tensor], name: str, given: Tensor) -> None:
    sums[name] = sums[name].add_(given) if name in sums else given.float()


def _taken(weight: Tensor) -> Tensor:
    given, weight.grad = weight.grad, None
    assert given is not None  # noqa: S101 # a hook is called when it is there
    return given


@contextmanager
def _absolute(model: nn.Module) -> Iterator[None]:
    """All parameters as absolute values and all means of batch norms 0, in place: of what was there a bit for each sign is kept."""
    data = [parameter.data for parameter in model.parameters() if parameter.is_floating_point()]
    signs = [np.packbits(torch.signbit(own).cpu().numpy()) for own in data]
    means = [
        (layer.running_mean, layer.running_mean.clone())
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    try:
        for own in data:
            own.abs_()
        for mean, _ in means:
            mean.zero_()
        yield
    finally:
        for own, packed in zip(data, signs, strict=True):
            negative = torch.from_numpy(np.unpackbits(packed, count=own.numel())).to(own.device).view(own.shape)
            own.copysign_((1 - 2 * negative.char()).to(own.dtype))
        for mean, before in means:
            mean.copy_(before)


@contextmanager
def _doubled(model: nn.Module) -> Iterator[None]:
    """Every floating tensor in double precision."""
    kept = [
        (tensor, tensor.data) for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point()
    ]
    try:
        for tensor, data in kept:
            tensor.data = data.double()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data
