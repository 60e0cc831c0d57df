from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from nets import NETWORKS, images, network
from secateur import load_compressed
from secateur.compression.compensation.batch_norm import dense_statistics, recalibrate
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.storage import save_compressed
from secateur.compression.transforms.channels import without
from secateur.errors import WorkloadError
from secateur.records import Candidate, CompressedModel

WORKLOAD = {"factory": "somewhere:workload"}


def compressed(model: nn.Module, *, tuned: bool) -> CompressedModel:
    groups = find_groups(model, (images(),)).groups
    plan = without(groups, {g.name: g.removable[::2] for g in groups})
    module = apply(model, plan)
    recalibrate(module, plan, dense_statistics(model, (images(8),)))
    if tuned:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.01)
    return CompressedModel(Candidate({}), plan, module)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tuned", [False, True])
def test_what_is_loaded_gives_the_same_outputs_to_the_bit(name, tuned, tmp_path):
    model = network(name)
    saved = compressed(model, tuned=tuned)
    save_compressed(saved, model, WORKLOAD, tmp_path / "c")
    loaded = load_compressed(tmp_path / "c", model)
    assert not loaded.training
    for key, tensor in saved.module.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    with torch.no_grad():
        assert torch.equal(loaded(images(3)), saved.module(images(3)))


def test_an_unrecovered_model_costs_little_and_nothing_is_pickled(tmp_path):
    model = network("residual")
    for tuned in (False, True):
        save_compressed(compressed(model, tuned=tuned), model, WORKLOAD, tmp_path / str(tuned))
    sizes = {tuned: (tmp_path / str(tuned) / "tensors.safetensors").stat().st_size for tuned in (False, True)}
    assert sizes[False] < sizes[True] / 2
    assert sorted(p.name for p in (tmp_path / "True").iterdir()) == ["compressed.json", "tensors.safetensors"]


def test_it_is_loaded_through_the_factory_that_made_the_model(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from conftest import make_workload\n\ndef workload(*, samples: int = 600):\n    return make_workload(samples=samples)\n"
    )
    monkeypatch.chdir(tmp_path)
    from conftest import make_workload

    model = make_workload().build_model()
    saved = compressed(model, tuned=False)
    save_compressed(saved, model, {"factory": "mine.py:workload", "samples": 500}, tmp_path / "c")
    loaded = load_compressed("c")
    with torch.no_grad():
        assert torch.equal(loaded(images(3)), saved.module(images(3)))


def test_other_dense_weights_are_refused(tmp_path):
    model = network("residual")
    save_compressed(compressed(model, tuned=False), model, WORKLOAD, tmp_path)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    with pytest.raises(WorkloadError, match="hashes differ"):
        load_compressed(tmp_path, model)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    model = network("VGG")
    save_compressed(compressed(model, tuned=True), model, WORKLOAD, tmp_path)
    tensors = tmp_path / "tensors.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-10])
    with pytest.raises(WorkloadError, match="no complete compressed model"):
        load_compressed(tmp_path, model)
    tensors.write_bytes(whole)
    description = json.loads((tmp_path / "compressed.json").read_text())
    (tmp_path / "compressed.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(WorkloadError, match="format 99 is not 2"):
        load_compressed(tmp_path, model)
    with pytest.raises(WorkloadError, match="no complete compressed model"):
        load_compressed(tmp_path / "nowhere", model)
