"""A trained model with its data, made by the user's factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from secateur.records.evaluations import Direction

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset


SHARE = "share"
"""The unit of scores in [0, 1]: shown in per cent, their differences in points."""


DynamicAxes = Mapping[str, Mapping[int, str]]
"""Input name → axis → name of the axis."""
NO_AXES: DynamicAxes = MappingProxyType({})

ROLES = ("train", "calibration", "search", "selection", "test")


def logits(outputs: Any) -> Any:
    """The default of `Workload.output`: the tensor that the model returns, or `logits` among what it returns."""
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)


@dataclass(frozen=True)
class DataRoles:
    """The five data roles, never mixed.

    Each is a map-style data set, or a DataLoader, which stands for its data set and its collate function. Batches are pairs of
    inputs and targets, or dicts that hold the model's inputs by name and the targets beside them.

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

    Inputs, outputs and targets are tensors (n, …), alone or in tuples, lists, dicts and dataclasses, to any depth. Loss and score
    get outputs as the model returns them.

    build_model: returns the trained module in float32, the same weights at every call.
    example_inputs: a tuple for `model(*example_inputs)`, or a dict for `model(**example_inputs)`.
    dynamic_axes: input name → axis → name: axes besides the batch whose size is not always the example's (length, height), those of
    one name equally long; input names are those of the exported file.
    output: model outputs → tensor (n, …), floating: what cut networks are compared by with the dense one (damage, distillation).
    build_early: returns the same module with weights from early in its training, for `recover.rewind`.
    loss: `(outputs, targets) → scalar tensor`, mean over the batch; also the loss of recovery.
    score: `(outputs, targets) → tensor (n,)` of per-sample scores (their mean is the accuracy) or a scalar.
        Or an object with `update(outputs, targets)` and `compute()`, which gives a scalar of all samples.
    score_direction: "minimize" where a lower score is better (perplexity, an error).
    score_unit: "share" for scores in [0, 1]; any other text is the unit of a plain number ("dB", or "" for none).
    slices: a sample of the data set → the name of the slice it is in ("night"); the gate looks at each slice of selection data.
    augment: `(inputs, generator) → inputs`, applied to each training batch during recovery; an only input comes as a tensor.
    """

    name: str
    build_model: Callable[[], nn.Module]
    example_inputs: tuple[Any, ...] | Mapping[str, Any]
    data: DataRoles
    loss: Callable[[Any, Any], Tensor]
    score: Any
    score_name: str = "top-1 accuracy"
    score_unit: str = SHARE
    score_direction: Direction = "maximize"
    augment: Callable[[Any, torch.Generator], Any] | None = None
    output: Callable[[Any], Tensor] = logits
    dynamic_axes: DynamicAxes = field(default_factory=dict)
    build_early: Callable[[], nn.Module] | None = None
    slices: Callable[[Any], str] | None = None
