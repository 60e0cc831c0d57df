"""The files of a network and of its candidates; each agrees with torch, or is refused."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from secateur.errors import EvaluationFailed, ModelError
from secateur.evaluators.onnx_export import export
from secateur.evaluators.onnx_template import OnnxTemplate, make_template
from secateur.evaluators.parity import check_parity
from secateur.evaluators.runtimes import Host
from secateur.records import Workload


class ModelFiles:
    """ONNX files of one dense network's candidates. `exports` counts those that could not be rewritten from the dense one's."""

    def __init__(self, model: nn.Module, workload: Workload, host: Host, dense_onnx: bytes | None = None) -> None:
        """Exports the dense model. dense_onnx: its file, where it has been exported already.

        Raises ModelError where it cannot be exported.
        """
        self.exports = 0
        self.template: OnnxTemplate = make_template(model, workload.example_inputs, dense_onnx)
        self.dense: bytes = self.template.dense.SerializeToString()
        self._examples, self._host = workload.example_inputs, host

    def of(self, module: nn.Module) -> bytes:
        """A candidate's file, rewritten in milliseconds. Raises EvaluationFailed where it does not agree with the module."""
        try:
            onnx = self.template.render(module)
            self._check(module, onnx)
        except EvaluationFailed:
            self.exports += 1
            try:
                onnx = self.exported(module)
            except ModelError as error:
                raise EvaluationFailed(str(error)) from error
        return onnx

    def exported(self, module: nn.Module) -> bytes:
        """A finalist's file: exported properly, in seconds. Raises as `of` does, and ModelError."""
        onnx: bytes = export(module, self._examples).SerializeToString()
        self._check(module, onnx)
        return onnx

    def _check(self, module: nn.Module, file: bytes) -> None:
        inputs = tuple(torch.cat([x[:1], x[:1]]) for x in self._examples)
        with torch.no_grad():
            expected = module(*inputs)
        outputs = self._host.open(file).run([np.ascontiguousarray(x.numpy()) for x in inputs])
        check_parity(outputs, expected, "the exported model")
