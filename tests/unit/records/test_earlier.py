"""Files that an earlier version has written (tests/earlier), as this one reads them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from conftest import REPOSITORY
from invented import narrowed
from secateur import load_compressed
from secateur.evaluators.runtimes import host_for
from secateur.pipelines.reading import read_record
from secateur.pipelines.state import read_run
from secateur.records import Candidate, Evaluation, earlier
from secateur.testing.examples import images

EARLIER = REPOSITORY / "tests" / "earlier"
"""A run of four trials on `dense`, by the version that wrote a width and a method for every group."""
EVALUATION = TypeAdapter(Evaluation)


def dense() -> nn.Module:
    first, second, last = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
    model = nn.Sequential(
        first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(((torch.arange(p.numel()) * 7 % 31 - 15) / 32).view(p.shape))
    return model.eval()


@pytest.fixture
def run(tmp_path):
    """The run, in a project."""
    folder = tmp_path / "mlruns" / "runs" / "earlier"
    shutil.copytree(EARLIER, folder)
    return read_run(folder)


def test_a_record_is_read(run):
    record = read_record(run)
    (finalist,) = record.finalists
    assert {t.arm for t in record.trials} >= {"dense", "global"}
    assert next(t for t in record.trials if t.arm == "dense").evaluation.candidate == Candidate({})
    assert finalist.candidate == next(t for t in record.trials if t.number == finalist.trial).evaluation.candidate
    assert finalist.candidate.edits
    assert {s.group for s in record.sensitivities} == {"0", "3"}


def test_a_compressed_model_computes_what_its_onnx_file_does(run):
    (finalist,) = read_record(run).finalists
    x, file = images(4), (run.path / finalist.folder / "model.onnx").read_bytes()
    with torch.no_grad():
        found = load_compressed(run.path / finalist.folder / "compressed", dense())(x)
    (expected,) = host_for("onnxruntime", {}, 1).open(file).run([x.numpy()])
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_a_stored_evaluation_and_a_rung_are_read(run):
    (trial,) = [t for t in json.loads((EARLIER / "record.json").read_text())["trials"] if t["arm"] == "global"][:1]
    stored = trial["evaluation"]
    found = EVALUATION.validate_python(earlier.evaluation(stored))
    assert found.plan_key == stored["removals_key"]
    assert found.candidate == narrowed(
        {name: cut["kept"] for name, cut in stored["candidate"]["cuts"].items()}, trial["method"]
    )
    assert not found.rejected
    unseen = {**stored, "stopped": "rejected unseen: macs would miss 'x'"}
    assert EVALUATION.validate_python(earlier.evaluation(unseen)).rejected
    assert earlier.evaluations({"key": stored}) == [earlier.evaluation(stored)]


def test_what_has_todays_form_is_left_as_it_is(run):
    today = earlier.record(json.loads((EARLIER / "record.json").read_text()))
    assert earlier.record(today) == today
