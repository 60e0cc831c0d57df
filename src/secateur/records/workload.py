"""A trained model with its data, made by the user's factory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset


SHARE = "share"
"""The unit of scores in [0, 1]: shown in per cent, their differences in points."""


ROLES = ("train", "calibration", "search", "selection", "test")


@dataclass(frozen=True)
class DataRoles:
    """The five data roles, never mixed. Every dataset is map-style and yields `(input or tuple of inputs, target)`.

    train: recovery learns from it. calibration: least squares, batch-norm recalibration, gradients. search: scores trials.
    selection: re-ranks the recovered front. test: touched once, on what is registered.
    """

    train: Dataset[Any]
    calibration: Dataset[Any]
    search: Dataset[Any]
    selection: Dataset[Any]
    test: Dataset[Any]


@dataclass(frozen=True)
class Workload:
    """A trained model with its data, made by the user's factory.

    build_model: returns the trained module in float32, the same weights at every call.
    example_inputs: a tuple of tensors with a leading batch dimension, as `model(*example_inputs)` takes them.
    loss: `(outputs, targets) → scalar tensor`, mean over the batch; also the loss of recovery.
    score: `(outputs, targets) → tensor (n,)` of per-sample scores (their mean is the accuracy) or a scalar; higher is better.
    score_unit: "share" for scores in [0, 1]; any other text is the unit of a plain number ("dB", or "" for none).
    augment: `(inputs, generator) → inputs`, applied to each training batch during recovery.
    """

    name: str
    build_model: Callable[[], nn.Module]
    example_inputs: tuple[Tensor, ...]
    data: DataRoles
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    score_name: str = "top-1 accuracy"
    score_unit: str = SHARE
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
