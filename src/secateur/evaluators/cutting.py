"""From removals to a network: cut, then batch norms recalibrated on calibration data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.compression.batch_norm import DenseStatistics, dense_statistics, recalibrate
from secateur.compression.surgery import cut
from secateur.errors import EvaluationFailed, first_line
from secateur.records import Removals, Workload
from secateur.workloads.roles import collect

PROBED_IMAGES = 64
"""Calibration samples for probes where candidates are not recalibrated."""


class Cutting:
    """Cuts one dense network. What it needs of that network's activations is computed once for each number of samples."""

    def __init__(self, model: nn.Module, workload: Workload) -> None:
        """model: in evaluation mode; it is left as it is."""
        self._model, self._calibration = model, workload.data.calibration
        self._statistics: dict[int, DenseStatistics] = {}

    def cut(self, removals: Removals, images: int) -> tuple[nn.Module, Tensor]:
        """The cut network, recalibrated on so many samples (0: not at all), and its outputs (n, …) on calibration samples.

        Raises EvaluationFailed where it no longer runs.
        """
        dense = self._dense(images)
        try:
            module = cut(self._model, removals)
            if images:
                return module, recalibrate(module, removals, dense)
            with torch.no_grad():
                return module, module(*dense.images)
        except Exception as error:  # whatever the user's forward raises on the cut network is this candidate's failure
            raise EvaluationFailed(f"the cut network does not run: {first_line(error)}") from error

    def dense_outputs(self, images: int) -> Tensor:
        """The dense network's outputs (n, …) on the samples that `cut` gives outputs on."""
        return self._dense(images).outputs

    def _dense(self, images: int) -> DenseStatistics:
        count = images or PROBED_IMAGES
        if count not in self._statistics:
            inputs, _ = collect(self._calibration, count)
            self._statistics[count] = dense_statistics(self._model, inputs)
        return self._statistics[count]
