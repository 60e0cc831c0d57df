"""The operators of an ONNX model, as a runtime executes them.

Runtimes fuse what works element by element into the operator before it: a convolution, the addition of a shortcut and a ReLU are
one step. What weights hold does not matter for time and is left out: operators of equal shapes are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import onnx
from onnx import TensorProto, helper

from secateur.errors import ModelError, first_line

ELEMENTWISE = frozenset(
    ("Abs", "Add", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
     "Mish", "Mul", "Neg", "PRelu", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh")
)  # fmt: skip
"""What runtimes fuse into the operator whose output it reads."""
VIEWS = frozenset(
    ("Cast", "Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze")
)
"""What does no work on the data, or is computed before the first run."""
PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""What multiplies and accumulates."""
FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))
KEPT_ELEMENTS = 16
"""A float constant of more elements is a weight: only its shape matters."""
PREVIOUS = -1
"""In place of a position: what the step before computed."""


@dataclass(frozen=True)
class Value:
    """A tensor that an operator reads. type: ONNX's number of it.

    content: a small constant as a serialised TensorProto, empty for weights; two values are equal whatever it is.
    """

    shape: tuple[int, ...]
    type: int
    constant: bool = False
    content: bytes = field(default=b"", compare=False)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Step:
    """One node. attributes: serialised, sorted by name. shape, output_type: of what it computes.

    reads: positions among the operator's values, PREVIOUS for what the step before computed, None for an input that is left out.
    """

    type: str
    domain: str
    attributes: tuple[bytes, ...]
    reads: tuple[int | None, ...]
    shape: tuple[int, ...]
    output_type: int


@dataclass(frozen=True)
class Operator:
    """A node with what is fused into it, all shapes known. Equal operators take equally long."""

    steps: tuple[Step, ...]
    values: tuple[Value, ...]
    opsets: tuple[tuple[str, int], ...]

    @cached_property
    def kind(self) -> str:
        """What it does, whatever the sizes: node types and the attributes of the first (kernel, stride, groups or none)."""
        first = self.steps[0]
        attributes = [onnx.AttributeProto.FromString(a) for a in first.attributes]
        described = []
        for attribute in attributes:
            value = helper.get_attribute_value(attribute)
            if attribute.name == "group":  # one per channel is a kind, however many channels there are
                value = "depthwise" if value > 1 and value == self.inputs[0].shape[1] else value
            described.append(f"{attribute.name}={value}")
        return f"{'+'.join(step.type for step in self.steps)}({', '.join(described)})"

    @cached_property
    def key(self) -> str:
        """Its kind and its sizes: what a table of measurements is indexed by."""
        sizes = " ".join(("*" if value.constant else "") + "x".join(map(str, value.shape)) for value in self.values)
        return f"{self.kind} {sizes} -> {'x'.join(map(str, self.output))}"

    @property
    def inputs(self) -> list[Value]:
        """What must be computed before it."""
        return [value for value in self.values if not value.constant]

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of what it computes."""
        return self.steps[-1].shape

    @property
    def product(self) -> tuple[int, int, int]:
        """Output channels, input channels that each sums over, and how often: their product is its MACs. Zeros without."""
        first = self.steps[0]
        if first.type not in PRODUCTS or not first.shape:
            return 0, 0, 0
        left, right = (self.values[position] for position in first.reads[:2] if position is not None)
        if first.type == "Conv":  # weights (out, in / groups, …)
            return first.shape[1], right.shape[1], first.shape[0] * prod(first.shape[2:]) * prod(right.shape[2:])
        if first.type == "ConvTranspose":  # weights (in, out / groups, …)
            return right.shape[1], left.shape[1], left.shape[0] * prod(left.shape[2:]) * prod(right.shape[2:])
        rows = prod(first.shape[:-1])
        return first.shape[-1], left.elements // rows if first.type == "Gemm" else left.shape[-1], rows

    @property
    def moved(self) -> int:
        """Elements that are read and written, weights left out."""
        return sum(value.elements for value in self.inputs) + prod(self.output)

    @property
    def weights(self) -> int:
        """Elements of its weights."""
        return sum(value.elements for value in self.values if value.constant)


def operators_of(content: bytes, batch: int) -> list[Operator]:
    """The operators of a serialised ONNX model that work on data, in its order. batch: samples per run, where it is left free.

    Raises ModelError where it is no ONNX model, or where some shape cannot be known before it runs.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own exceptions share no base with others
        raise ModelError(f"this is no ONNX model: {first_line(error)}") from error
    graph, opsets = model.graph, tuple(sorted((entry.domain, entry.version) for entry in model.opset_import))
    stored = {tensor.name: tensor for tensor in (*graph.initializer, *_constants(graph.node))}
    values = {name: _stored_value(tensor) for name, tensor in stored.items()}
    values |= {name: value for name, value in _shapes(model, stored, batch).items() if name not in values}
    return [_operator(chain, values, opsets) for chain in _chains(graph, values)]


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    """Tensors that are written into the graph as nodes, under the names of their outputs."""
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            yield tensor


def _stored_value(tensor: TensorProto) -> Value:
    shape = tuple(tensor.dims)
    if tensor.data_type in FLOATS and prod(shape) > KEPT_ELEMENTS:
        return Value(shape, tensor.data_type, constant=True)
    unnamed = TensorProto()
    unnamed.CopyFrom(tensor)
    unnamed.name = ""
    return Value(shape, tensor.data_type, constant=True, content=unnamed.SerializeToString())


def _shapes(model: onnx.ModelProto, stored: Mapping[str, TensorProto], batch: int) -> dict[str, Value]:
    """What is fed and computed, where its shape can be known. Weights take no part: only their shapes go through inference."""
    graph = onnx.GraphProto(name="shapes", node=model.graph.node)
    for tensor in model.graph.initializer:
        if _stored_value(tensor).content:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for entry in model.graph.input:
        if entry.name not in stored:
            graph.input.append(entry)
            dimensions = graph.input[-1].type.tensor_type.shape.dim
            if dimensions and not dimensions[0].HasField("dim_value"):
                dimensions[0].dim_value = batch
    graph.output.extend(onnx.ValueInfoProto(name=entry.name) for entry in model.graph.output)
    shaped = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    inferred = onnx.shape_inference.infer_shapes(shaped, data_prop=True).graph
    values = {}
    for entry in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor_type = entry.type.tensor_type
        if tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in tensor_type.shape.dim):
            values[entry.name] = Value(tuple(d.dim_value for d in tensor_type.shape.dim), tensor_type.elem_type)
    return values


def _chains(graph: onnx.GraphProto, values: dict[str, Value]) -> list[list[onnx.NodeProto]]:
    """Nodes that execute together: one, and elementwise ones that alone read what the chain computed last.

    values: what is computed from constants alone becomes one, in place.
    """
    uses = Counter([name for node in graph.node for name in node.input] + [entry.name for entry in graph.output])
    chains: list[list[onnx.NodeProto]] = []
    ends: dict[str, int] = {}  # the output of a chain's last node → the chain's number
    for node in graph.node:
        if all(name in values and values[name].constant for name in node.input if name):
            for name in node.output:
                if name in values:
                    values[name] = replace(values[name], constant=True)
            continue
        computed = values.get(node.output[0])
        if node.op_type in VIEWS or (computed is not None and computed.type not in FLOATS):
            continue  # arithmetic on shapes and indices
        before = [ends[name] for name in node.input if uses[name] == 1 and name in ends]
        if node.op_type in ELEMENTWISE and before:
            number = max(before)
            chains[number].append(node)
        else:
            number = len(chains)
            chains.append([node])
        ends = {name: chain for name, chain in ends.items() if chain != number} | {node.output[0]: number}
    return chains


def _operator(
    chain: Sequence[onnx.NodeProto], values: Mapping[str, Value], opsets: tuple[tuple[str, int], ...]
) -> Operator:
    """Raises ModelError where a shape is unknown."""
    names: list[str] = []
    steps = []
    previous = None
    for node in chain:
        reads: list[int | None] = []
        for name in node.input:
            if name and name != previous and name not in names:
                names.append(name)
            reads.append(None if not name else PREVIOUS if name == previous else names.index(name))
        unknown = [name for name in (*node.input, node.output[0]) if name and name not in values]
        if unknown:
            raise ModelError(
                f"the shape of '{unknown[0]}' at {node.op_type} '{node.name}' cannot be known before the model runs, so its "
                "latency cannot be predicted. Fix all dimensions but the first in the model, or measure without 'predictor'."
            )
        output = values[node.output[0]]
        attributes = tuple(
            a.SerializeToString(deterministic=True) for a in sorted(node.attribute, key=lambda a: a.name)
        )
        steps.append(Step(node.op_type, node.domain, attributes, tuple(reads), output.shape, output.type))
        previous = node.output[0]
    return Operator(tuple(steps), tuple(values[name] for name in names), opsets)
