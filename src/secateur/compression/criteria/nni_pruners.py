"""NNI 3.0's pruners as criteria: the metric of which each masks the lowest. What is masked there leaves here.

A pruner sees a group's weights by root channel, one linear layer for each layer that writes it, so that any layer will do and the
user's model is not wrapped. NNI is an extra; this is the only module of the criteria that imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import nni
import torch
from nni.compression.pruning import FPGMPruner, L1NormPruner, L2NormPruner, LevelPruner, TaylorPruner
from torch import Tensor, nn

from secateur.compression.criteria.channel_tensors import ChannelTensors
from secateur.compression.criteria.weights import LayerWeights

nni.silence_stdout()

NORMS = {"l1": L1NormPruner, "l2": L2NormPruner, "fpgm": FPGMPruner}
"""Pruners that look at weights alone."""


def of_weights(pruner: str, tensors: ChannelTensors) -> Tensor:
    """A pruner's metric, a mean over the layers that write the channel, as NNI has it of a dependency group. (channels,), ≥ 0.

    pruner: of `NORMS`. A channel without a filter in a layer (a padded shortcut) counts as 0 there and is no neighbour of others.
    """
    total = torch.zeros(tensors.channels)
    for weights, written in zip(tensors.producers, tensors.written, strict=True):
        made = NORMS[pruner](_holding(weights[written]), _CONFIG)
        total[written] += _metric(made, made._collect_data())
    return total / max(1, len(tensors.producers))


def taylor(tensors: ChannelTensors) -> Tensor:
    """Root of the sum of (w·g)² over the weights that write the channel, a mean over layers as above. (channels,), ≥ 0.

    Source: Molchanov et al. 2019, arXiv:1906.10771, eq. 8, weight by weight. NNI takes the mean of the squares over steps of a
    training; here the weights stay as they are while calibration data passes. The mean over batches is the caller's, and its root
    ranks alike.
    """
    total = torch.zeros(tensors.channels)
    for weights, gradients in zip(tensors.producers, tensors.producers_grad, strict=True):
        made = TaylorPruner(_holding(weights), _CONFIG, None, training_steps=1)  # the evaluator would train
        total += _metric(made, {"0": {"weight": (weights * gradients).square()}})
    return (total / max(1, len(tensors.producers))).sqrt()


def level(weights: LayerWeights) -> Tensor:
    """The metric of NNI's level pruner: absolute value, |w|. Source: Han et al. 2015, arXiv:1506.02626."""
    made = LevelPruner(_holding(weights.values.flatten(1)), _CONFIG)
    return _metric(made, made._collect_data()).view_as(weights.values)


_CONFIG = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
"""A ratio is demanded; metrics do not depend on it."""


def _holding(weights: Tensor) -> nn.Module:
    """A network of one layer with these weights, (rows, inputs)."""
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weights)
    return nn.Sequential(layer)


def _metric(pruner: L1NormPruner, data: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """What a pruner makes of what it has collected: one figure for each entity that it may mask, flat."""
    return cast("Tensor", pruner._calculate_metrics(data)["0"]["weight"]).flatten()
