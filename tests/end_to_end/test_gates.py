"""A whole run whose finalist has gates: trained, timed path by path, registered, exported."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import torch

from end_to_end.conftest import call, make_project
from nets import images, network
from secateur import load_compressed
from secateur.compression.gates import gated_blocks
from secateur.gating import GatedSession
from tracking import tracking_at

OPTIONS = (
    "search_space.groups.0.removed=[0.4, 0.6]",
    "evaluator.constraints.accuracy.max_drop=0.99",
    "search.trials=3",
    "recover={epochs: 1, finalists: 1, batch: 32, gates: {budget: 0.6}}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("gates"))
    done = call(project, "run", "tiny", *(word for option in OPTIONS for word in ("--set", option)))
    assert done.returncode == 0, done.stderr
    (folder,) = (project / "mlruns" / "runs").iterdir()
    return project, folder, json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def finalist(run):
    (finalist,) = run[2]["finalists"]
    return finalist


@pytest.fixture(scope="module")
def module(run, finalist):
    return load_compressed(run[1] / finalist["folder"] / "compressed", network("residual"))


def test_what_is_registered_answers_as_the_module(run, finalist, module):
    """A batch, in which some samples want a block and some do not, and samples alone; the threshold is no input of the signature."""
    project, _, _ = run
    x = images(16, 5)
    with torch.no_grad():
        expected = module(x).numpy(), module(x[:1]).numpy()
    with tracking_at(f"sqlite:///{project / 'mlruns' / 'mlflow.db'}"):
        import mlflow

        loaded = mlflow.pyfunc.load_model("models:/tiny-model@candidate")
        version = mlflow.MlflowClient().get_model_version_by_alias("tiny-model", "candidate")
    for given, answer in zip((x, x[:1]), expected, strict=True):
        np.testing.assert_allclose(loaded.predict(given.numpy())["output"], answer, rtol=1e-3, atol=1e-4)
    assert [entry.shape for entry in loaded.metadata.signature.inputs.inputs] == [(-1, 3, 8, 8)]
    example = loaded.input_example
    with torch.no_grad():
        answer = module(torch.from_numpy(np.asarray(example)))
    np.testing.assert_allclose(loaded.predict(example)["output"], answer.numpy(), rtol=1e-3, atol=1e-4)
    assert version.tags["secateur.finalist"] == finalist["name"]
    assert "with channels removed, with gates before its blocks" in version.description
    assert "latency and MACs are averages over calibration samples; every gate open: " in version.description


def test_single_paths_are_timed_and_shown(run, finalist, module):
    project, folder, _ = run
    names, paths = [*gated_blocks(module)], finalist["paths"]
    assert [path["closed"] for path in paths] == [[], *([name] for name in names), names]
    assert all(path["latency"]["value"] > 0 for path in paths)
    most, *_, least = [path["macs"] for path in paths]
    assert least <= finalist["measurements"]["macs"]["value"] <= most
    page = (folder / "report.html").read_text()
    assert "Paths through gates" in page
    assert f"{names[0]} closed" in page
    assert "averages over calibration samples" in " ".join(call(project, "show").stdout.split())


def test_what_is_exported_answers_as_the_module(run, finalist, module, tmp_path):
    project, _, record = run
    done = call(project, "export", record["run_id"], finalist["name"], "--to", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    load = runpy.run_path(str(tmp_path / "out" / "load.py"))
    x = images(16, 5)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(load["module"](network("residual"))(x), expected)
    (answer,) = load["session"]().run(None, {"input": x.numpy()})
    np.testing.assert_allclose(answer, expected.numpy(), rtol=1e-3, atol=1e-4)
    assert (
        GatedSession((tmp_path / "out" / "model.onnx").read_bytes()).prices.blocks.keys() == gated_blocks(module).keys()
    )
