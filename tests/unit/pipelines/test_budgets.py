"""Limits that no network of a space can keep."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nets import images, network
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.definition import SearchSpaceDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.budgets import check_budgets
from secateur.records import Goal, Measurement
from secateur.search_spaces import build_space
from secateur.testing.transforms import random_scores


def prepared(*methods):
    """Half of the channels may go, or nine tenths of the weights."""
    model = network("residual")
    found = find_groups(model, (images(),))
    rule = {"methods": list(methods), "removed": [0.0, 0.5], "zeros": [0.0, 0.9]}
    counted = lambda module: sum(int(p.count_nonzero()) for p in module.parameters())  # noqa: E731 # one line says it
    evaluator = SimpleNamespace(
        compress=lambda _, plan: SimpleNamespace(module=apply(model, plan)),
        files=SimpleNamespace(rewritten=lambda module, _: module),
        measure=lambda module, _, __: {"nonzero": Measurement(float(counted(module)), "parameters", "computed")},
    )
    space = build_space(SearchSpaceDefinition.model_validate({"groups": [rule]}), found)
    where = SimpleNamespace(where=lambda *_: "here")
    dense = {"nonzero": Measurement(float(counted(model)), "parameters", "computed")}
    made = SimpleNamespace(
        space=space, evaluator=evaluator, costs=found.costs, definition=SimpleNamespace(evaluator=where)
    )
    scores = {g.name: random_scores(g, torch.Generator().manual_seed(0)) for g in (*found.groups, *found.fixed)}
    return made, scores, dense


def limit(share, dense):
    value = share * dense["nonzero"].value
    return [Goal("nonzero", "at_most", value, value, "nonzero small enough")]


def test_a_limit_is_out_of_reach_only_where_every_kind_of_cut_misses_it():
    """A fifth of what is not zero: channels alone leave a quarter, zeros a tenth of the weights."""
    channels, scores, dense = prepared("random")
    with pytest.raises(DefinitionError, match="no network of this search space has nonzero small enough"):
        check_budgets(channels, scores, limit(0.2, dense), dense)
    both, scores, dense = prepared("random", "weights/random")
    check_budgets(both, scores, limit(0.2, dense), dense)
    with pytest.raises(DefinitionError, match="no network of this search space has nonzero small enough"):
        check_budgets(both, scores, limit(0.05, dense), dense)
