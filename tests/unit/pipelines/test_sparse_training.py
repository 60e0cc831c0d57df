"""Sparse training as driver and workers see it: what is cut, what is compared, what is on disk."""

from __future__ import annotations

import pytest
import torch

from conftest import make_workload
from nets import images, network
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.storage import load_compressed, save_compressed, weights_digest
from secateur.definition import load_pipeline
from secateur.errors import DefinitionError
from secateur.pipelines import preparation, sparse_training
from secateur.pipelines.ranking import ranked
from secateur.pipelines.sparse_training import give_sparse, settings_of
from secateur.records import Candidate, Job

PIPELINE = """
name: tiny
workload: {factory: made:made}
search_space: {groups: [{methods: METHODS}]}
evaluator: {objectives: {accuracy: maximize, size: minimize}, calibration_images: 16, refit_images: 0}
recover: {batch: 64, distill: null}
sparse_training:
  penalty: PENALTY
  strength: 0.05
  epochs: 2
  learning_rate: RATE
"""


@pytest.fixture
def prepared(tmp_path, monkeypatch, dense_onnx):
    """Of a small network, from a definition with these values."""
    monkeypatch.chdir(tmp_path)
    opened = []

    def made(model="residual", *, penalty="bn_l1", methods="[bn_scale, l2]", rate="0.02"):
        text = PIPELINE.replace("METHODS", methods).replace("PENALTY", penalty).replace("RATE", rate)
        (tmp_path / "tiny.yaml").write_text(text)
        workload = make_workload(network(model))
        monkeypatch.setattr(preparation, "load_workload", lambda *_: workload)
        file = dense_onnx if model == "residual" else None
        opened.append(preparation.prepare(load_pipeline("tiny.yaml")[0], tmp_path, dense_onnx=file))
        return opened[-1]

    yield made
    for one in opened:
        one.close()


def test_candidates_are_cut_from_the_trained_network_and_compared_with_the_original(prepared, tmp_path):
    run = prepared()
    original = weights_digest(run.model)
    give_sparse(run, tmp_path / "sparse" / "model.safetensors")
    evaluator = run.evaluator
    assert weights_digest(run.model) == original
    assert weights_digest(run.source) not in (
        original,
        weights_digest(apply(run.model, resolve(Candidate({}), (), {}))),
    )
    x = images(4)
    with torch.no_grad():
        whole = evaluator.cutting.cut(resolve(Candidate({}), run.space.groups, {}), 0)
        torch.testing.assert_close(whole(x), run.source(x))
        assert evaluator.files.dense.module is run.model
        assert (run.source(x) - run.model(x)).abs().max() > 1e-3

    saliencies = ranked(run)
    scales = run.source.get_submodule("layer1.0.bn1").weight.detach().abs()
    torch.testing.assert_close(saliencies["layer1.0.conv1"]["bn_scale"], scales)
    nothing = Job(Candidate({}), resolve(Candidate({}), run.space.groups, saliencies))
    assert evaluator.evaluate(nothing).measurements["damage"].value < 1e-6, "damage is what a cut does"
    assert evaluator.probe(nothing).measurements["damage"].value < 1e-6
    assert evaluator.uncut_score().value == pytest.approx(evaluator.evaluate(nothing).measurements["accuracy"].value)

    candidate = run.space.uniform(0.5, "bn_scale")
    compressed = evaluator.compress(candidate, resolve(candidate, run.space.groups, saliencies))
    save_compressed(compressed, run.model, {"factory": "made:made"}, tmp_path / "kept")
    loaded = load_compressed(tmp_path / "kept", make_workload(network("residual")).build_model())
    assert weights_digest(loaded) == weights_digest(compressed.module)


def test_workers_and_restarts_read_what_the_driver_has_trained(prepared, tmp_path, monkeypatch):
    file, told = tmp_path / "sparse" / "model.safetensors", []

    def killed(text, share):
        told.append((text.partition(":")[0], share))
        if share == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_sparse(prepared(), file, step=killed)
    resumed = prepared()
    give_sparse(resumed, file, step=killed)
    assert told == [
        ("sparse training", 0.0), ("sparse training, epoch 1 of 2", 0.5),
        ("sparse training", 0.0), ("sparse training, epoch 2 of 2", 1.0),
    ]  # fmt: skip
    assert [f.name for f in file.parent.iterdir()] == ["model.safetensors"]
    through = prepared()
    give_sparse(through, tmp_path / "other" / "model.safetensors")
    monkeypatch.setattr(sparse_training, "fine_tune", None)
    worker = prepared()
    give_sparse(worker, file)
    assert len({weights_digest(run.source) for run in (resumed, through, worker)}) == 1


def test_it_is_trained_as_finalists_are_but_for_its_own_keys(prepared):
    definition = prepared().definition
    settings = settings_of(definition, definition.sparse_training)
    assert (settings.epochs, settings.learning_rate, settings.batch, settings.distill) == (2, 0.02, 64, None)
    alone = settings_of(definition.model_copy(update={"recover": None}), definition.sparse_training)
    assert alone.distill is None, "no workload has agreed to distillation"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"model": "sigmoid", "methods": "[l2]"},
            r"tiny.yaml:8: 'bn_l1' applies to no group .* lacks a batch norm with scales",
        ),
        ({"methods": "[weights/lamp]"}, r"tiny.yaml:7: .* no method of the search space removes channels"),
    ],
)
def test_a_penalty_on_nothing_is_refused_before_long_work(prepared, given, words):
    with pytest.raises(DefinitionError, match=words):
        prepared(**given)


def test_a_training_that_diverges_is_told_with_its_line(prepared, tmp_path):
    with pytest.raises(
        DefinitionError, match=r"tiny.yaml:11: sparse training ended early: .* Lower 'learning_rate' or"
    ):
        give_sparse(prepared(rate="1000.0"), tmp_path / "sparse" / "model.safetensors")
