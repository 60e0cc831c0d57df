from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

import finished
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.storage import load_compressed, save_compressed
from secateur.compression.transforms.channels import without
from secateur.errors import ModelError, WorkloadError
from secateur.pipelines import models
from secateur.pipelines.models import export_finalist
from secateur.pipelines.state import RunFolder
from secateur.records import Candidate, CompressedModel
from secateur.workloads.attention import opened

PLAIN = """
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return x + self.heads(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).view_as(x)

def build(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=1), nn.PReLU(8)]
    return nn.Sequential(*layers, Attention(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6), nn.LayerNorm(6), nn.Linear(6, 4)).eval()
"""

ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "secateur":
            raise ImportError("there is no secateur here")

sys.meta_path.insert(0, Refuse())
sys.path[:0] = [{out!r}, {here!r}]
import numpy as np, torch, load, plain
x = np.load({here!r} + "/x.npy")
np.save({here!r} + "/onnx.npy", load.session(providers=["CPUExecutionProvider"]).run(None, {{"input": x}})[0])
with torch.no_grad():
    np.save({here!r} + "/torch.npy", load.module(plain.build(seed=5))(torch.from_numpy(x)).numpy())
"""


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN)
    specification = importlib.util.spec_from_file_location("plain_of_a_test", tmp_path / "plain.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path, plain):
    """A run with one finalist, f1: half of the channels of each group gone, another batch norm."""
    dense = opened(plain.build())
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    groups = find_groups(dense, (x,)).groups
    plan = without(groups, {group.name: group.removable[::2] for group in groups})
    smaller = apply(dense, plan)
    smaller[1].running_mean += 0.3
    folder = tmp_path / "mlruns" / "runs" / "r-1"
    compressed = CompressedModel(Candidate({}), plan, smaller)
    save_compressed(compressed, dense, {"factory": "plain.py:build"}, folder / "f1" / "compressed")
    double = helper.make_node("Add", ["input", "input"], ["output"])
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8, 8]) for name in ("input", "output")]
    made = helper.make_model(
        helper.make_graph([double], "g", places[:1], places[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    (folder / "f1" / "model.onnx").write_bytes(made.SerializeToString())
    with torch.no_grad():
        output = smaller(x).numpy()
    buffer = io.BytesIO()
    np.savez(buffer, output=output, input=x.numpy())
    (folder / "example.npz").write_bytes(buffer.getvalue())
    (folder / "example.json").write_text(json.dumps({"inputs": ["input"], "outputs": ["output"]}))
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "expected.npy", output)
    return RunFolder(folder, "r-1", "p", "d", str(tmp_path), "now", "w", {})


def test_what_is_exported_runs_without_this_package(run, plain, tmp_path):
    out = tmp_path / "out"
    files = export_finalist(
        run, finished.finalist("f1", 0.9, 0.5), finished.DENSE["accuracy"], opened(plain.build()), out
    )
    assert {file.name for file in files} == {"model.onnx", "model.safetensors", "model.json", "load.py", "attention.py"}
    subprocess.run([sys.executable, "-c", ALONE.format(out=str(out), here=str(tmp_path))], check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "torch.npy"), np.load(tmp_path / "expected.npy"), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(np.load(tmp_path / "onnx.npy"), 2 * np.load(tmp_path / "x.npy"))
    described = json.loads((out / "model.json").read_text())
    assert described["attributes"]["0"] == {"out_channels": 4}
    assert described["measurements"]["latency"]["value"] == 0.5


def test_what_the_loader_cannot_carry_is_noticed(run, plain, tmp_path, monkeypatch):
    def another_activation(*arguments):
        smaller = load_compressed(*arguments)
        smaller[2] = torch.nn.Identity()
        return smaller

    monkeypatch.setattr(models, "load_compressed", another_activation)
    with pytest.raises(ModelError, match="The exported torch module differs from the run's by"):
        export_finalist(
            run, finished.finalist("f1", 0.9, 0.5), finished.DENSE["accuracy"], opened(plain.build()), tmp_path / "out"
        )


def test_a_finalist_without_a_file_says_why(run, plain, tmp_path):
    (run.path / "f1" / "model.onnx").unlink()
    with pytest.raises(WorkloadError, match="f1 has no ONNX file: it broke"):
        export_finalist(
            run, finished.finalist("f1", 0.9, 0.5, failure="it broke"), None, opened(plain.build()), tmp_path / "out"
        )
