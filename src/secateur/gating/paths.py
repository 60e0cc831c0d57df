"""Paths through gated networks: which are looked at alone, and a network or its file that takes one whatever it is given."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx
from torch import nn

from secateur.compression.copies import copied
from secateur.compression.gates import gated_blocks
from secateur.gating.onnx_graph import THRESHOLD, graphs, opened
from secateur.gating.prices import Prices


def closings(prices: Prices) -> list[tuple[str, ...]]:
    """The blocks that are closed on each path that is looked at: none, each alone, all of them."""
    names = tuple(prices.blocks)
    return list(dict.fromkeys([(), *((name,) for name in names), names]))


def module_on_path(model: nn.Module, closed: Collection[str]) -> nn.Module:
    """A copy of a gated model that closes these blocks for every input, and no other one. Gates are computed all the same."""
    fixed = copied(model)
    for name, block in gated_blocks(fixed).items():
        block.threshold.fill_(_threshold(name in closed))
    return fixed


def file_on_path(content: bytes, prices: Prices, closed: Collection[str]) -> bytes:
    """The same of its ONNX file."""
    model = onnx.load_model_from_string(content)
    for name in prices.blocks:
        fixed = onnx.helper.make_tensor(f"{name}.fixed", onnx.TensorProto.FLOAT, [], [_threshold(name in closed)])
        model.graph.initializer.append(fixed)
        for node in model.graph.node:
            if opened(name) in (
                *node.output,
                *node.input,
            ):  # the decision, and the branch, in which each sample decides
                inside = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
                for part in [node, *(node for branch in inside for graph in graphs(branch) for node in graph.node)]:
                    part.input[:] = [fixed.name if given == THRESHOLD else given for given in part.input]
    return bytes(model.SerializeToString())


def _threshold(closed: bool) -> float:  # noqa: FBT001 # of a gate
    return math.inf if closed else -math.inf
