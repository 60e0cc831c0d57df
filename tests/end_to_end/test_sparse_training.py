"""A whole run whose candidates are cut from the network after sparse training, worker and registry included."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from end_to_end.conftest import call, make_project
from nets import images, network
from secateur.compression.storage import load_compressed, weights_digest
from tiny import make_workload

OPTIONS = (
    "sparse_training={penalty: bn_l1, strength: 0.02, epochs: 2}",
    "search_space.groups.0.methods=[bn_scale, l2]",
    "search.trials=10",
    "recover.finalists=1",
    "recover.epochs=1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("sparse"))
    words = [word for option in OPTIONS for word in ("--set", option)]
    checked = call(project, "check", "tiny", *words)
    done = call(project, "run", "tiny", *words)
    assert done.returncode == 0, done.stderr
    (folder,) = (project / "mlruns" / "runs").iterdir()
    return checked, folder, json.loads((folder / "record.json").read_text())


def test_check_says_what_is_trained_and_what_that_costs(run):
    said = " ".join(run[0].stdout.split())
    assert "sparse training: 2 epochs before the search, with the penalty bn_l1 on" in said
    assert "estimated time: " in said
    assert ": sparse training " in said.split("estimated time: ")[1]


def test_the_model_on_disk_and_the_file_that_is_shipped_are_one(run):
    """Loaded by the original and what differs from it; the network in between need not be there."""
    _, folder, record = run
    (finalist,) = record["finalists"]
    original = make_workload(network("residual")).build_model()
    module = load_compressed(folder / finalist["folder"] / "compressed", original)
    session = onnxruntime.InferenceSession(folder / finalist["folder"] / "model.onnx")
    x = images(4)
    (answers,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(answers, module(x).numpy(), rtol=1e-3, atol=1e-4)
    sparse = load_file(folder / "sparse" / "model.safetensors")
    scale = original.get_submodule("bn1").weight
    assert not torch.equal(sparse["bn1.weight"], scale)
    assert json.loads((folder / "run.json").read_text())["identity"].startswith(weights_digest(original)[:16])


def test_the_record_and_the_page_say_what_was_cut(run):
    _, folder, record = run
    assert 0 < record["uncut"]["value"] <= 1
    assert record["seconds"]["check.sparse_training"] > 0
    page = (folder / "report.html").read_text()
    assert "the original after 2 epochs with the penalty bn_l1 (0.02)" in page
