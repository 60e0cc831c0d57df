"""Gates in an ONNX file: as the exporter writes `torch.cond`, an `If` for each, made quick to run and open to a controller.

The exporter keeps the weights of branches in the outer graph, where ONNX Runtime neither fuses the layers that read them nor lays
them out for its convolutions: with all gates open, a network of 2.3 times the time without gates takes 1.4 times once they lie in
the branch (ResNet of widths 16, 32, 64 with three blocks each, images of 16×16, one thread).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict

import onnx

from secateur.errors import ModelError
from secateur.gating.prices import Prices

THRESHOLD = "gate_threshold"
"""What the threshold of all gates is called, an input that need not be given."""
_PRICES = "secateur.gates"


def settled(content: bytes, prices: Prices) -> bytes:
    """The file of a gated model with the weights of each block in its branch, one optional input for the threshold, and its prices.

    content: as exported, with the model's own names. Raises ModelError where the exporter has not kept every gate.
    """
    model = onnx.load_model_from_string(content)
    graph = model.graph
    own = {f"{block}.threshold" for block in prices.blocks}
    thresholds = [entry for entry in graph.initializer if entry.name in own]
    _renamed(graph, {entry.name: THRESHOLD for entry in thresholds})
    decisions = [node for node in graph.node if node.op_type == "Greater" and node.input[1] == THRESHOLD]
    if len(decisions) != len(prices.blocks):
        raise ModelError(
            f"The ONNX exporter has kept {len(decisions)} of {len(prices.blocks)} gates. Leave 'gates' out of 'recover'."
        )
    _renamed(graph, {node.output[0]: opened(name) for node, name in zip(decisions, prices.blocks, strict=True)})
    for other in thresholds[1:]:
        graph.initializer.remove(other)
    thresholds[0].name = THRESHOLD
    graph.input.append(onnx.helper.make_tensor_value_info(THRESHOLD, thresholds[0].data_type, thresholds[0].dims))
    _move_inside(graph)
    model.metadata_props.add(key=_PRICES, value=json.dumps(asdict(prices)))
    return bytes(model.SerializeToString())


def opened(block: str) -> str:
    """What the decision of a block's gate is called: of type bool, without dimensions, over the whole batch."""
    return f"{block}.open"


def prices_in(model: onnx.ModelProto) -> Prices | None:
    """What the blocks of a settled file cost; None of a file without gates."""
    return next((Prices(**json.loads(entry.value)) for entry in model.metadata_props if entry.key == _PRICES), None)


def with_decisions(content: bytes) -> tuple[bytes, Prices]:
    """A settled file with the decision of each gate as a further output, in the order of the prices, and the prices.

    Raises ModelError where there are none.
    """
    model = onnx.load_model_from_string(content)
    prices = prices_in(model)
    if prices is None:
        raise ModelError(
            "This ONNX file has no gates: it was not exported from a model that was trained with 'recover.gates'."
        )
    for block in prices.blocks:
        model.graph.output.append(onnx.helper.make_tensor_value_info(opened(block), onnx.TensorProto.BOOL, []))
    return model.SerializeToString(), prices


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def _renamed(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for part in graphs(graph):
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def _move_inside(graph: onnx.GraphProto) -> None:
    """Initializers that one branch alone reads become its own."""
    readers: dict[str, list[onnx.GraphProto]] = defaultdict(list)
    for part in graphs(graph):
        for name in {name for node in part.node for name in node.input}:
            readers[name].append(part)
    stored = list(graph.initializer)
    del graph.initializer[:]
    for entry in stored:
        own = readers[entry.name]
        (own[0] if len(own) == 1 else graph).initializer.append(entry)
