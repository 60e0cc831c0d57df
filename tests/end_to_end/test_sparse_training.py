"""A whole run whose candidates are cut from the network after sparse training, and in int8 too, worker and registry included."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import secateur
from end_to_end.conftest import call, make_project
from nets import images, network
from secateur.compression.storage import load_compressed, weights_digest
from secateur.workloads.roles import collect
from tiny import make_workload
from tracking import tracking_at

OPTIONS = (
    "sparse_training={penalty: bn_l1, strength: 0.02, epochs: 2}",
    "search_space.groups.0.methods=[bn_scale, l2]",
    "search.trials=10",
    "recover.finalists=1",
    "recover.epochs=1",
    "quantize=[none, int8]",
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
    finalist = record["finalists"][0]
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


def test_the_finalist_and_the_original_stand_beside_their_int8_twins(run):
    _, folder, record = run
    first, *twins = record["finalists"]
    assert [f["name"] for f in twins] == ["dense-int8", f"{first['name']}-int8"]
    assert [f["quantized"]["of"] for f in twins] == ["dense", first["name"]]
    original = make_workload(network("residual"))
    (x,), labels = collect(original.data.selection)
    for twin in twins:
        file = folder / twin["folder"] / "model.onnx"
        (answers,) = onnxruntime.InferenceSession(file).run(None, {"input": x.numpy()})
        score = original.score(torch.from_numpy(answers), labels).float().mean().item()
        assert twin["measurements"]["accuracy"]["value"] == pytest.approx(score, abs=1e-6)
        assert twin["measurements"]["size"]["value"] == file.stat().st_size
        assert twin["measurements"]["latency"]["details"]["min_ms"] > 0
        assert 0 < twin["quantized"]["deviation"]["value"] < 0.1
        assert record["verdicts"][twin["name"]]["change"] is not None
    assert record["seconds"]["recover.quantizing"] > 0
    assert f"int8 of {first['name']}, outputs" in (folder / "report.html").read_text()


def test_int8_models_are_sent_to_the_registry_and_taken_out_as_what_they_are(run, tmp_path):
    _, folder, record = run
    passed = {n for n, v in record["verdicts"].items() if v["on_front"] and not any(c["missed"] for c in v["checks"])}
    with tracking_at(f"sqlite:///{folder.parents[1] / 'mlflow.db'}"):
        import mlflow

        client = mlflow.MlflowClient()
        versions = {v.tags["secateur.finalist"]: v for v in client.search_model_versions("name = 'tiny-model'")}
        experiment = client.get_experiment_by_name("tiny").experiment_id
        sent = {r.data.tags["secateur.part"]: r for r in client.search_runs([experiment])}
    assert versions.keys() == passed
    for name, version in versions.items():
        assert version.tags["secateur.precision"] == ("int8" if name.endswith("-int8") else "float32")
    assert sent["dense-int8"].data.params["precision"] == "int8"
    original = make_workload(network("residual")).build_model()
    opened = secateur.open_run(project=folder.parents[2])
    opened.export(tmp_path, "dense-int8", dense=original)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "finalists" / "dense-int8" / "model.onnx").read_bytes()
    said = json.loads((tmp_path / "model.json").read_text())
    assert said["precision"] == {"model.onnx": "int8", "model.safetensors": "float32"}
    assert weights_digest(opened.module("dense-int8", dense=original)) == weights_digest(original)
