"""The files of a network and of its candidates; each agrees with torch, or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import nn

from secateur.compression.costs import LayerCosts
from secateur.compression.plan import is_bypassed
from secateur.errors import EvaluationFailed, ModelError
from secateur.evaluators import int8
from secateur.evaluators.cutting import failing
from secateur.evaluators.formats import ONNX, convert
from secateur.evaluators.onnx_export import export
from secateur.evaluators.onnx_template import OnnxTemplate, make_template
from secateur.evaluators.parity import check_parity
from secateur.evaluators.runtimes import Host, HostSession
from secateur.records import Workload
from secateur.workloads.pytrees import PyTree, call, joined, mapped, rows, tensors
from secateur.workloads.roles import collect

COMPRESSION = 3
"""The level of zstd at which a download is compressed: its default. It takes 1 to 7 ms a megabyte, most where half of the weights
are zero; level 9 takes 5 to 30 and saves 9 % where nine of ten are zero, 1 % where half are, nothing where none is."""
COMPARED = 2
"""Calibration samples on which a file and its module are compared, beside the example."""


@dataclass(frozen=True)
class DenseModel:
    """The network that candidates are cut from and compared with. onnx: its file, where it has been exported already."""

    model: nn.Module
    workload: Workload
    costs: LayerCosts
    onnx: bytes | None = None


@dataclass(frozen=True)
class Network:
    """A network under test.

    onnx: what is scored on this host. macs: for one sample. converted: the same for a device whose runtime reads another format.
    quantized: whether the file is in int8; the module is in float32.
    """

    module: nn.Module
    onnx: bytes
    macs: int
    converted: bytes | None = None
    quantized: bool = False

    @property
    def file(self) -> bytes:
        """As shipped, in the runtime's format."""
        return self.onnx if self.converted is None else self.converted

    @cached_property
    def download(self) -> int:
        """Bytes of the file, compressed by zstd at level `COMPRESSION`."""
        compressor = zstandard.ZstdCompressor(level=COMPRESSION)
        return sum(map(len, compressor.read_to_iter(self.file, size=len(self.file))))


class ModelFiles:
    """Files of one dense network and its candidates. `exports` counts those that could not be rewritten from the dense one's.

    Where blocks have left it is another graph, which is exported and not counted.

    why_exported: what kept the last of them from being rewritten, None where there was none. outputs: what the dense model returns
    for some samples.
    """

    def __init__(self, dense: DenseModel, host: Host, *, suffix: str = ONNX, batch: int = 1) -> None:
        """Exports the dense model. suffix, batch: what the device's runtime reads.

        Raises ModelError where it cannot be exported, or where the file does not agree with the module.
        """
        self.exports = 0
        self.why_exported: str | None = None
        self._opened: tuple[bytes, HostSession] | None = None
        workload = dense.workload
        self.template: OnnxTemplate = make_template(
            dense.model, workload.example_inputs, dense.onnx, workload.dynamic_axes
        )
        self._examples, self._axes = workload.example_inputs, workload.dynamic_axes
        self._calibration = workload.data.calibration
        self._host, self._suffix = host, suffix
        self._batch = mapped(lambda x: torch.cat([x[:1]] * batch), self._examples)
        # An example of zeros says little: most weights do not show in its outputs.
        samples, _ = collect(workload.data.calibration, COMPARED)
        compared = [rows(self._examples, slice(1)), samples]
        self._compared = compared if self._axes else [joined(compared)]
        with torch.no_grad():
            self.outputs: PyTree = call(dense.model, samples)
        try:
            self._check(self._expected(dense.model), self.template.dense)
            self.dense = self._network(dense.model, self.template.dense, dense.costs.total)
        except EvaluationFailed as error:
            raise ModelError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
        self.close()  # much comes before it is scored

    def rewritten(self, module: nn.Module, macs: int) -> Network:
        """A candidate, its ONNX file rewritten in milliseconds, or, without some block, exported in seconds.

        Raises EvaluationFailed where it does not agree with the module.

        So it does where the module does not run.
        """
        expected = self._expected(module)
        try:
            onnx = self.template.render(module)
            self._check(expected, onnx)
        except EvaluationFailed as problem:
            if not is_bypassed(module):
                self.exports += 1
                self.why_exported = str(problem)
            try:
                onnx = self._exported(module)
            except ModelError as error:
                raise EvaluationFailed(str(error)) from error
        return self._network(module, onnx, macs)

    def exported(self, module: nn.Module, macs: int) -> Network:
        """A finalist: exported properly, in seconds. Raises as `rewritten` does, and ModelError."""
        return self._network(module, self._exported(module), macs)

    def quantized(self, network: Network) -> Network:
        """A network in int8, in seconds. Its file must answer everywhere as on this host. Raises EvaluationFailed."""
        inputs, _ = collect(self._calibration, int8.SAMPLES)
        return replace(network, onnx=int8.quantized(network.onnx, _arrays(inputs)), quantized=True)

    @torch.no_grad()
    def answers(self, network: Network, inputs: PyTree) -> PyTree:
        """What every runtime must answer: torch's outputs; of an int8 file, which torch does not run, this host's, in order."""
        if network.quantized:
            return [torch.from_numpy(x) for x in self.session(network).run(_arrays(inputs))]
        return call(network.module, inputs)

    def _exported(self, module: nn.Module) -> bytes:
        onnx = export(module, self._examples, self._axes)
        self._check(self._expected(module), onnx)
        return onnx

    def _network(self, module: nn.Module, onnx: bytes, macs: int) -> Network:
        converted = None if self._suffix == ONNX else convert(self._suffix, module, self._batch)
        return Network(module, onnx, macs, converted)

    def session(self, network: Network) -> HostSession:
        """A network opened on this host, once for its comparison with the module and for what follows. Raises EvaluationFailed."""
        if self._opened is None or self._opened[0] is not network.onnx:
            self._opened = None
            self._opened = network.onnx, self._host.open(network.onnx)
        return self._opened[1]

    def close(self) -> None:
        """Let go of the network that is open: beside the next one it would take its size twice."""
        self._opened = None

    @torch.no_grad()
    def _expected(self, module: nn.Module) -> list[PyTree]:
        """A module's outputs on what its file is compared on. Raises EvaluationFailed where it does not run."""
        with failing():
            return [call(module, inputs) for inputs in self._compared]

    def _check(self, expected: Sequence[PyTree], file: bytes) -> None:
        """Raises EvaluationFailed where a file does not give what is expected."""
        self.close()  # at most one is open at a time
        session = self._host.open(file)
        self._opened = file, session
        for inputs, wanted in zip(self._compared, expected, strict=True):
            check_parity(session.run(_arrays(inputs)), wanted, "the exported model")


def _arrays(inputs: PyTree) -> list[NDArray[Any]]:
    """As sessions take them."""
    return [np.ascontiguousarray(x.numpy()) for x in tensors(inputs)]
