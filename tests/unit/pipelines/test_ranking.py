from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from conftest import make_workload
from nets import NETWORKS, images, shaken
from secateur.compression.groups import find_groups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import ModelError, WorkloadError
from secateur.pipelines.ranking import ranked, scored
from secateur.pipelines.stages import saliencies_of
from secateur.search_spaces import build_space

BASE = NETWORKS["sigmoid"]


class Fussy(type(BASE())):
    """Wrong for the one set of channels that a magnitude criterion removes, once `fussy` is set."""

    fussy = False

    def forward(self, x):
        if self.fussy and self.one.out_channels == 4 and self.one.weight.abs().sum() > 0 and not self.dense_ones():
            x = x + 1
        return super().forward(x)

    def dense_ones(self) -> bool:
        return bool((self.one.weight.flatten(1).abs().sum(1) < 1).any())


def prepared_for(model, *rules):
    workload = make_workload(model)
    rules = rules or [{"match": "*", "methods": ["l1", "random"]}]
    space = build_space(SearchSpaceDefinition(groups=rules), find_groups(model, (images(),)))
    evaluator = SimpleNamespace(cutting=SimpleNamespace(grams={}))
    return SimpleNamespace(source=model, workload=workload, space=space, evaluator=evaluator)


def tailored() -> torch.nn.Module:
    torch.manual_seed(0)
    model = shaken(Fussy())
    with torch.no_grad():
        model.one.weight[::2] *= 0.01
    return model


def test_every_criterion_ranks_every_group():
    prepared = prepared_for(tailored())
    scores = ranked(prepared)
    assert {name: set(by) for name, by in scores.items()} == {"one": {"l1", "random"}, "two": {"l1", "random"}}


def test_what_a_criterion_refutes_ends_before_the_search(monkeypatch):
    prepared = prepared_for(tailored())
    monkeypatch.setattr(Fussy, "fussy", True)
    with pytest.raises(
        ModelError, match=r"channels that 'l1' ranks lowest.*wrong: removing its channels is not the same"
    ):
        ranked(prepared)


def test_a_criterion_without_finite_scores_is_left_out_with_one_warning_and_stays_out_after_a_restart(
    tmp_path, caplog, monkeypatch
):
    rules = [{"match": "one", "methods": ["taylor", "l1"]}, {"match": "two", "methods": ["random", "taylor"]}]
    prepared = prepared_for(tailored(), *rules)
    prepared.workload = replace(prepared.workload, loss=lambda outputs, _: outputs.mean() / 0.0)
    run = SimpleNamespace(path=tmp_path)
    space = scored(prepared.space, saliencies_of(prepared, run))
    assert {name: choice.methods for name, choice in space.choices.items()} == {"one": ("l1",), "two": ("random",)}
    assert [record.getMessage().partition(" is inf")[0] for record in caplog.records] == [
        "The criterion 'taylor' is left out of this run: The loss of the dense model on calibration batch 0"
    ]
    monkeypatch.setattr("secateur.pipelines.stages.ranked", None)
    assert scored(prepared.space, saliencies_of(prepared, run)) == space


def test_a_group_that_is_left_without_a_criterion_ends_the_run_with_the_reason(caplog):
    prepared = prepared_for(
        tailored(), {"match": "one", "methods": ["taylor", "hessian"]}, {"match": "two", "methods": ["l1"]}
    )
    prepared.workload = replace(prepared.workload, loss=lambda outputs, _: outputs.mean() / 0.0)
    with pytest.raises(WorkloadError, match="loss of the dense model on calibration batch 0 is inf. Check the weights"):
        ranked(prepared)
    assert not caplog.records
