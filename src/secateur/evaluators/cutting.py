"""From a plan to a network: cut, then repaired on calibration data, without training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from secateur.compression.compensation.batch_norm import DenseStatistics, batch_norms, dense_statistics, recalibrate
from secateur.compression.compensation.gram import Grams
from secateur.compression.compensation.least_squares import LeastSquares
from secateur.compression.compensation.sequential import DenseAnswers, dense_answers, refit_in_order
from secateur.compression.copies import copied
from secateur.compression.plan import apply
from secateur.errors import EvaluationFailed, first_line
from secateur.memory import give_back
from secateur.records import Plan, Workload
from secateur.workloads.portions import fitting, portions
from secateur.workloads.pytrees import PyTree, call, joined, rows
from secateur.workloads.roles import collect

PROBED_IMAGES = 64
"""Calibration samples for probes where candidates are not recalibrated."""
SEQUENTIAL = 4
"""Portions that layers are refitted on in order: each layer needs all samples at once."""


class Cutting:
    """Cuts one dense network. What it needs of that network's activations is computed once for each number of samples."""

    def __init__(self, model: nn.Module, workload: Workload) -> None:
        """model: in evaluation mode; it is left as it is."""
        self.model, self._workload = model, workload
        self._statistics: dict[int, list[DenseStatistics]] = {}
        self._least_squares: LeastSquares | None = None
        self._answers: DenseAnswers | None = None

    @property
    def grams(self) -> Grams:
        """The Gram matrices by which layers that read cut channels are refitted; none where they are not."""
        return {} if self._least_squares is None else self._least_squares.grams

    @grams.setter
    def grams(self, grams: Grams) -> None:
        self._least_squares = LeastSquares(self.model, grams)
        give_back()

    def cut(self, plan: Plan, images: int) -> nn.Module:
        """The cut network, refitted, and recalibrated on so many samples (0: not at all).

        Raises EvaluationFailed where it no longer runs and that shows: one without batch norms is not run.
        """
        return self._repaired(plan, images)[0]

    def probed(self, plan: Plan, images: int) -> tuple[nn.Module, PyTree]:
        """The same network, and its outputs on such samples. Raises EvaluationFailed where it does not run."""
        module, outputs = self._repaired(plan, images)
        dense = self._dense(images)
        if outputs is None:
            with failing(), torch.no_grad():
                outputs = joined([call(module, portion.images) for portion in dense])
        return module, outputs

    def observe(self, images: int) -> None:
        """Run the dense network on so many samples, where its candidates are recalibrated: once for all of them."""
        if images and batch_norms(self.model):
            self._dense(images)

    def refined(self, plan: Plan, images: int, refit_images: int) -> nn.Module:
        """The network of `cut`, or that refitted layer after layer: the one of least loss on `refit_images` calibration samples.

        Behind a strong cut, what a layer reads is no longer what the Gram matrices say, and statistics that are carried over by
        difference may do harm. Raises EvaluationFailed where it no longer runs, WorkloadError where the loss raises.
        """
        module = self.cut(plan, images)
        if self._least_squares is None:
            return module
        inputs, targets = collect(self._workload.data.calibration, refit_images)
        if self._answers is None:
            some = rows(inputs, slice(SEQUENTIAL * fitting(self.model, inputs)))
            self._answers = dense_answers(self.model, list(self.grams), some)
        with failing():
            ordered = self._refitted(plan)
            refit_in_order(ordered, self.model, plan, self._answers)
            choices = [module, ordered]
            if images:
                choices.append(copied(ordered))
                recalibrate(choices[-1], plan, self._dense(images))
            with torch.no_grad():
                parts = portions(module, inputs)
                outputs_by_choice = [joined([call(choice, rows(inputs, part)) for part in parts]) for choice in choices]
        losses = [float(self._workload.loss(outputs, targets)) for outputs in outputs_by_choice]
        return min(zip(losses, choices, strict=True), key=lambda pair: _or_worst(pair[0]))[1]

    def dense_outputs(self, images: int) -> PyTree:
        """The dense network's outputs on the samples that `probed` gives outputs on."""
        return joined([portion.outputs for portion in self._dense(images)])

    def _repaired(self, plan: Plan, images: int) -> tuple[nn.Module, PyTree | None]:
        """What recalibration says in passing is kept: a probe need not ask for it once more."""
        recalibrates = bool(images and batch_norms(self.model))
        dense = self._dense(images) if recalibrates else []
        with failing():
            module = self._refitted(plan)
            outputs = recalibrate(module, plan, dense) if recalibrates else None
        give_back()
        return module, outputs

    def _refitted(self, plan: Plan) -> nn.Module:
        module = apply(self.model, plan)
        if self._least_squares is not None:
            self._least_squares.refit(module, plan)
        return module

    def _dense(self, images: int) -> list[DenseStatistics]:
        count = images or PROBED_IMAGES
        if count not in self._statistics:
            inputs, _ = collect(self._workload.data.calibration, count)
            self._statistics[count] = dense_statistics(self.model, inputs)
            give_back()
        return self._statistics[count]


@contextmanager
def failing() -> Iterator[None]:
    """Whatever the user's forward raises on the cut network is this candidate's failure."""
    try:
        yield
    except Exception as error:
        raise EvaluationFailed(f"the cut network does not run: {first_line(error)}") from error


def _or_worst(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
