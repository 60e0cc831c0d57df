"""Export once, then rewrite tensors: the ONNX file of a candidate in milliseconds instead of seconds.

The dense network is exported once. Every initializer of that file is traced back to the module's own tensors by a rule (copied,
transposed, folded with a batch norm) and the rule is checked against the exported values. A candidate's file is the same graph
with the rules applied to the candidate's tensors. Nothing is taken on trust: `Evaluator` compares the outputs of every
candidate's file with the module's, and falls back to an export where a rule does not hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from secateur.compression.plan import is_bypassed
from secateur.errors import EvaluationFailed
from secateur.evaluators.onnx_export import exported_parts
from secateur.evaluators.onnx_parts import OnnxParts
from secateur.evaluators.onnx_reshapes import free_reshapes
from secateur.memory import give_back
from secateur.records.workload import NO_AXES, DynamicAxes
from secateur.workloads.pytrees import PyTree, call, rows

Tensors = Mapping[str, Tensor]
Rule = Callable[[Tensors], Tensor]

_FOLDING = {"Conv", "ConvTranspose", "Gemm"}


@dataclass(frozen=True)
class OnnxTemplate:
    """A dense ONNX file and, per initializer, the rule that computes it from a module's tensors.

    parts: the same model without the values that rules give. depthwise: positions of nodes that hold their channel count as an
    attribute. unexplained: tensors without a rule; they stay as exported, which is right where the candidate has the same `fixed`:
    the module's tensors that no rule reads.
    """

    dense: bytes
    parts: OnnxParts
    rules: Mapping[str, Rule]
    depthwise: tuple[int, ...]
    unexplained: tuple[str, ...] = ()
    fixed: Tensors = field(default_factory=dict)

    def render(self, model: nn.Module) -> bytes:
        """The serialised ONNX file of a module that has the dense one's layers with fewer channels.

        Raises EvaluationFailed where a tensor without a rule would have to change, or where a block has left: that is another
        graph.
        """
        if is_bypassed(model):
            raise EvaluationFailed("a block has been left out, and the file has it")
        tensors = _tensors(model)
        changed = [
            name for name, tensor in self.fixed.items() if name not in tensors or not torch.equal(tensors[name], tensor)
        ]
        if self.unexplained and changed:
            derived = ", ".join(self.unexplained[:3])
            raise EvaluationFailed(
                f"{', '.join(changed[:3])} changes, from which forward() computes tensors of its own ({derived} in the ONNX graph)"
            )
        with torch.no_grad():
            values = {name: rule(tensors).contiguous().numpy() for name, rule in self.rules.items()}
        graph = onnx.ModelProto()
        graph.CopyFrom(self.parts.graph)
        for position in self.depthwise:
            node = graph.graph.node[position]
            _group(node).i = len(values[node.input[1]])
        return OnnxParts(graph, {**self.parts.values, **values}).file()


def make_template(
    model: nn.Module, example_inputs: PyTree, dense_onnx: bytes | None = None, dynamic_axes: DynamicAxes = NO_AXES
) -> OnnxTemplate:
    """Export the dense module and find the rules. dense_onnx: an earlier template's file, instead of an export.

    Raises ModelError where it cannot be exported.
    """
    if dense_onnx is None:
        dense = exported_parts(model, example_inputs, dynamic_axes)
        give_back()
        free_reshapes(dense.graph)
    else:
        dense = OnnxParts.of(dense_onnx)
    tensors = _tensors(model)
    folds = _folding_rules(dense, _norm_after(model, example_inputs), model, tensors)
    rules: dict[str, Rule] = {}
    unexplained = []
    graph = dense.graph.graph
    for initializer in graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT or not initializer.dims:
            continue
        value = _as_tensor(dense.value(initializer))
        rule = _explain(initializer.name, value, tensors, folds)
        if rule is not None:
            rules[initializer.name] = rule
        elif value.numel() > 1:
            unexplained.append(initializer.name)
    shapes = {i.name: tuple(i.dims) for i in graph.initializer}
    depthwise = tuple(
        position
        for position, node in enumerate(graph.node)
        if node.op_type == "Conv" and _group(node).i == shapes.get(node.input[1], (1,))[0] > 1
    )
    fixed = _unread(tensors, rules) if unexplained else {}
    file = dense.file() if dense_onnx is None else dense_onnx
    kept = {name: value.copy() for name, value in dense.values.items() if name not in rules}
    return OnnxTemplate(file, OnnxParts(dense.graph, kept), rules, depthwise, tuple(unexplained), fixed)


def _as_tensor(value: NDArray[Any]) -> Tensor:
    """The same memory, which may be of a file and is only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(value)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """A module's tensors by name; of parametrized ones (weight norm, say) what they compute, as a plain layer would have it."""
    tensors: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        prefix = f"{name}." if name else ""
        if ".parametrizations." in f".{prefix}":
            continue
        own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
        if parametrize.is_parametrized(layer):
            own.update({tensor: getattr(layer, tensor) for tensor in layer.parametrizations})
        tensors.update({f"{prefix}{key}": tensor for key, tensor in own.items()})
    return tensors


class _Read(dict[str, Tensor]):
    """Tensors that remember which of them were read."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]


@torch.no_grad()
def _unread(tensors: Tensors, rules: Mapping[str, Rule]) -> dict[str, Tensor]:
    """Copies of the floating-point tensors that no rule reads."""
    read = _Read(tensors)
    for rule in rules.values():
        rule(read)
    return {
        name: tensor.detach().clone()
        for name, tensor in tensors.items()
        if name not in read.names and tensor.is_floating_point()
    }


def _group(node: onnx.NodeProto) -> onnx.AttributeProto:
    """The attribute that says into how many groups a convolution splits its channels; absent means one."""
    return next((a for a in node.attribute if a.name == "group"), onnx.AttributeProto(name="group", i=1))


def _explain(name: str, value: Tensor, tensors: Tensors, folds: Mapping[str, Rule]) -> Rule | None:
    """The rule that gives this value: fold, copy or transpose, first by name, then by content."""

    def copied(source: str) -> Rule:
        return lambda t: t[source].detach()

    def transposed(source: str) -> Rule:
        return lambda t: t[source].detach().T

    with torch.no_grad():
        if name in folds and _equal(folds[name](tensors), value):
            return folds[name]
        if name in tensors and _equal(tensors[name], value):
            return copied(name)
        for source, tensor in tensors.items():
            if tensor.is_floating_point() and _equal(tensor, value):
                return copied(source)
            if tensor.dim() == 2 and _equal(tensor.T, value):  # a matrix
                return transposed(source)
    return None


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and bool(torch.allclose(left, right, rtol=1e-5, atol=1e-7))


def _norm_after(model: nn.Module, example_inputs: PyTree) -> dict[str, str]:
    """Which batch norm reads each layer's output directly, seen in one forward pass: layer name → batch norm name."""
    produced: dict[int, str] = {}
    alive: list[Tensor] = []  # a freed tensor's identity could be used again
    norms: dict[str, str] = {}
    hooks = []

    def note(name: str, output: Tensor) -> None:
        produced[id(output)] = name
        alive.append(output)

    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            hooks.append(
                layer.register_forward_pre_hook(
                    lambda _, inputs, name=name: (
                        norms.update({produced[id(inputs[0])]: name}) if id(inputs[0]) in produced else None
                    )
                )
            )
        elif isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            hooks.append(layer.register_forward_hook(lambda _m, _i, output, name=name: note(name, output)))
    with torch.no_grad():
        call(model.eval(), rows(example_inputs, slice(1)))
    for hook in hooks:
        hook.remove()
    return norms


def _folding_rules(
    dense: OnnxParts, norm_after: Mapping[str, str], model: nn.Module, tensors: Tensors
) -> dict[str, Rule]:
    """Rules for weights and biases into which the exporter folded the batch norm behind the layer.

    A tensor that the layer computes has lost its name in the graph; its layer is the one whose folded weight has its values.
    """
    candidates: dict[str, tuple[Rule, Rule]] = {}
    for layer, norm in norm_after.items():
        eps = float(model.get_submodule(norm).eps)  # type: ignore[arg-type] # a batch norm's eps
        transposed = isinstance(model.get_submodule(layer), nn.modules.conv._ConvTransposeNd)
        candidates[layer] = (
            _fold(layer, norm, eps, 0, transposed=transposed),
            _fold(layer, norm, eps, 1, transposed=transposed),
        )
    values = {i.name: i for i in dense.graph.graph.initializer}
    rules: dict[str, Rule] = {}
    for node in dense.graph.graph.node:
        if node.op_type not in _FOLDING or len(node.input) < 3:  # input, weight, bias
            continue
        layer = node.input[1].removesuffix(".weight")
        if layer not in candidates and layer not in tensors and node.input[1] in values:
            value = _as_tensor(dense.value(values[node.input[1]]))
            with torch.no_grad():
                layer = next(
                    (name for name, (weight, _) in candidates.items() if _equal(weight(tensors), value)), layer
                )
        if layer in candidates:
            rules.update(zip(node.input[1:3], candidates[layer], strict=True))
    return rules


def _fold(layer: str, norm: str, eps: float, position: int, *, transposed: bool) -> Rule:
    """Weight (position 0) or bias (position 1) of a layer with the batch norm behind it folded in."""

    def rule(tensors: Tensors) -> Tensor:
        weight, bias = tensors[f"{layer}.weight"], tensors.get(f"{layer}.bias")
        mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
        scale, shift = tensors.get(f"{norm}.weight"), tensors.get(f"{norm}.bias")
        if scale is None or shift is None:
            scale, shift = torch.ones_like(mean), torch.zeros_like(mean)
        if weight.dim() == 2:  # a linear layer's matrix
            folded = fuse_linear_bn_weights(weight, bias, mean, variance, eps, scale, shift)
        else:
            folded = fuse_conv_bn_weights(weight, bias, mean, variance, eps, scale, shift, transpose=transposed)
        return folded[position].detach()

    return rule
