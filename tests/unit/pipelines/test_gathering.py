"""Gram matrices of a run: gathered once, read by its workers, and what is said of them."""

from __future__ import annotations

import dataclasses
import weakref
from types import SimpleNamespace

import pytest
import torch

from conftest import make_workload
from nets import network
from secateur.compression.compensation.gram import grams_of
from secateur.compression.groups import find_groups
from secateur.definition import load_pipeline
from secateur.errors import DefinitionError
from secateur.evaluators.cutting import Cutting
from secateur.pipelines import gathering
from secateur.pipelines.gathering import give_grams, refitted
from secateur.pipelines.names import check_names
from secateur.workloads.portions import PROBED


def prepared(name: str = "residual", refit_images: int = 64) -> SimpleNamespace:
    model = network(name)
    workload = make_workload(model)
    found = find_groups(model, workload.example_inputs).groups
    return SimpleNamespace(
        definition=SimpleNamespace(evaluator=SimpleNamespace(refit_images=refit_images)),
        model=model,
        source=model,
        workload=workload,
        space=SimpleNamespace(groups=[dataclasses.replace(group, weights=()) for group in found]),
        evaluator=SimpleNamespace(cutting=Cutting(model, workload)),
    )


def test_they_are_gathered_once_for_a_run_and_its_workers(tmp_path, monkeypatch):
    driver, worker, file = prepared(), prepared(), tmp_path / "grams.safetensors"
    give_grams(driver, file)
    monkeypatch.setattr(gathering, "grams_of", lambda *_: pytest.fail("gathered again"))
    give_grams(worker, file)
    theirs, ours = worker.evaluator.cutting.grams, driver.evaluator.cutting.grams
    assert theirs.keys() == ours.keys() != set()
    assert all(torch.equal(theirs[name], gram) for name, gram in ours.items())


def test_they_lie_in_their_file_and_not_in_memory_besides(tmp_path, monkeypatch):
    gathered = []

    def gather(*given):
        grams = grams_of(*given)
        gathered.extend(map(weakref.ref, grams.values()))
        return grams

    monkeypatch.setattr(gathering, "grams_of", gather)
    give_grams(prepared(), tmp_path / "grams.safetensors")
    assert gathered
    assert not any(gram() is not None for gram in gathered)


def test_a_dry_run_gathers_from_a_few_samples(tmp_path):
    dry, seen = prepared(), []
    dry.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    give_grams(dry, tmp_path / "grams.safetensors", most=8)
    assert sum(seen) == PROBED + 8
    assert dry.evaluator.cutting.grams


def test_without_refitting_nothing_is_gathered(tmp_path):
    off = prepared(refit_images=0)
    give_grams(off, tmp_path / "grams.safetensors")
    assert not off.evaluator.cutting.grams
    assert not list(tmp_path.iterdir())


def test_what_is_not_refitted_is_said():
    assert str(refitted(prepared())) == "10 of 10 refitted by least squares on up to 64 calibration samples"
    assert str(refitted(prepared("U-Net"))).endswith("samples; not 'up': a ConvTranspose2d is not refitted")
    assert str(refitted(prepared(refit_images=0))) == "not refitted: refit_images is 0"


PIPELINE = """
name: tiny
workload: {factory: made:made}
search_space:
  groups:
    - methods: [l2, obs]
evaluator: {objectives: {accuracy: maximize, size: minimize}, refit_images: REFIT}
"""


def test_a_criterion_that_counts_on_refitting_is_refused_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(PIPELINE.replace("REFIT", "0"))
    with pytest.raises(DefinitionError, match=r"tiny.yaml:6: 'obs' ranks by .*'refit_images: 0' turns that off"):
        check_names(load_pipeline("tiny.yaml")[0], tmp_path)
    (tmp_path / "tiny.yaml").write_text(PIPELINE.replace("REFIT", "32"))
    check_names(load_pipeline("tiny.yaml")[0], tmp_path)
