"""Scores of single weights, for every group and criterion that a search space wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import Grams
from secateur.compression.criteria.weights import WEIGHT_METHODS, LayerWeights
from secateur.compression.masks import by_row
from secateur.compression.saliency import raising
from secateur.compression.scores import scores_of
from secateur.compression.weight_gradients import GRADIENTS
from secateur.errors import NotFinite
from secateur.records import WEIGHTS, Group, Weights, Workload


def weight_saliencies(
    model: nn.Module,
    groups: Sequence[Group],
    criteria: Sequence[str],
    workload: Workload,
    grams: Grams,
    failed: Callable[[str, NotFinite], None] = raising,
) -> dict[str, dict[str, Tensor]]:
    """Score every weight of every group by every criterion, once: group → `weights/criterion` → (weights,), float32, on the CPU.

    The weights are those of `Group.weights`, layer by layer, row by row. grams: for criteria that need them; a layer without one
    counts as if its inputs were equal and apart. failed: told of a criterion whose scores, or the loss for them, are not finite,
    and why; it is then left out of all groups. Raises WorkloadError where scores are wrong otherwise.
    """
    scores: dict[str, dict[str, Tensor]] = {group.name: {} for group in groups}
    layers = {
        weights.layer: cast("nn.Parameter", model.get_submodule(weights.layer).weight)
        for group in groups
        for weights in group.weights
    }
    for name in criteria:
        method, called = WEIGHT_METHODS[name], f"{WEIGHTS}/{name}"
        try:
            gradients = GRADIENTS[method.gradients](model, layers, workload) if method.gradients else None
            awaited = Counter(weights.layer for group in groups for weights in group.weights)
            for group in filter(lambda group: group.weights, groups):
                parts = []
                for weights in group.weights:
                    seen = _seen(model, weights, gradients, grams if method.needs_grams else {})
                    parts.append(scores_of(called, method.score, seen, tuple(seen.values.shape), "weight").flatten())
                    awaited[weights.layer] -= 1
                    if gradients and not awaited[weights.layer]:
                        gradients.pop(weights.layer, None)  # in large networks its scores need the room
                scores[group.name][called] = torch.cat(parts)
        except NotFinite as error:
            failed(called, error)
            for own in scores.values():
                own.pop(called, None)
    return scores


@torch.no_grad()
def _seen(model: nn.Module, weights: Weights, gradients: Mapping[str, Tensor] | None, grams: Grams) -> LayerWeights:
    layer, gram = model.get_submodule(weights.layer), grams.get(weights.layer)
    weight = cast("Tensor", layer.weight)
    whole = weights.rows == tuple(range(len(by_row(layer, weight))))
    rows = slice(None) if whole else list(weights.rows)  # a slice copies nothing
    columns = weights.inputs * weights.kernel
    derivatives = None
    if gradients is not None:
        derivatives = gradients[weights.layer] if weights.layer in gradients else torch.zeros_like(weight)
    return LayerWeights(
        weights.layer,
        by_row(layer, weight)[rows].float(),
        None if derivatives is None else by_row(layer, derivatives)[rows],
        gram[:, :columns, :columns] if gram is not None and (whole or len(gram) == 1) else None,
    )
