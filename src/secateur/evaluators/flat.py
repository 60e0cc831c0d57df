"""A model as exporters see it: named tensors go in one by one, and named tensors come out."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from secateur.gating.onnx_graph import graphs
from secateur.workloads.pytrees import INPUT, OUTPUT, PyTree, call, filled, named, tensors

_MODEL = "model."


class FlatModule(nn.Module):
    """Calls a model with tensors in the order of its example inputs, and returns a tuple of all tensors among its outputs.

    A tensor without a name is `input` or `output`, several of a tuple are `input_0`, `input_1`, …; keys of dicts and fields of
    dataclasses are names (`logits`, `boxes_left`). An output that is called as an input is has `output_` before its name.
    """

    def __init__(self, model: nn.Module, example_inputs: PyTree) -> None:
        """Runs the model once, to know its outputs. model: in evaluation mode."""
        super().__init__()
        self.model, self._inputs = model, example_inputs
        with torch.no_grad():
            outputs = named(call(model, example_inputs), OUTPUT)
        self.input_names = list(named(example_inputs, INPUT))
        self.output_names = [f"{OUTPUT}_{name}" if name in self.input_names else name for name in outputs]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """given: one tensor per name, (n, …). Returns one per output name."""
        return tuple(tensors(call(self.model, filled(self._inputs, given))))

    def name_as_in_the_model(self, exported: onnx.ModelProto) -> None:
        """Give the model's own tensors the names in an exported graph that they have in the model, in place."""
        for entry in exported.graph.initializer:
            entry.name = self.own_name(entry.name)
        for graph in graphs(exported.graph):
            for node in graph.node:
                node.input[:] = [self.own_name(name) for name in node.input]

    @staticmethod
    def own_name(name: str) -> str:
        """The name in the model of a tensor of an exported graph."""
        return name.removeprefix(_MODEL)
