from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from nets import network
from secateur.errors import WorkloadError
from secateur.workloads.checkpoints import load_weights


@pytest.fixture
def trained():
    return network("residual")


def same(left, right):
    return all(torch.equal(t, right.state_dict()[k]) for k, t in left.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_checkpoints_in_the_usual_wrappings(trained, prefix, wrapper, tmp_path):
    state = {f"{prefix}{k}": v for k, v in trained.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "a.pth")
    assert same(load_weights(network("residual"), tmp_path / "a.pth"), trained)


def test_safetensors(trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    assert same(load_weights(network("residual"), tmp_path / "a.safetensors"), trained)


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/secateur-was-here", "w"))


def test_a_pickle_that_is_not_weights_only_is_refused_and_does_nothing(tmp_path):
    torch.save({"state_dict": {}, "extra": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WorkloadError, match="does not load with weights_only=True"):
        load_weights(network("residual"), tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WorkloadError):
        load_weights(network("residual"), tmp_path / "plain.pth")
    from pathlib import Path

    assert not Path("/tmp/secateur-was-here").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(trained, suffix, share, tmp_path):
    path = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(trained.state_dict(), path)
    else:
        save_file(trained.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WorkloadError, match=str(path)):
        load_weights(network("residual"), path)


def test_files_that_do_not_fit_say_which_tensor(trained, tmp_path):
    with pytest.raises(WorkloadError, match="does not exist"):
        load_weights(trained, tmp_path / "nowhere.pth")
    state = trained.state_dict()
    del state["linear.bias"]
    save_file(state, tmp_path / "missing.safetensors")
    with pytest.raises(WorkloadError, match="there is no tensor 'linear.bias' for ResNet"):
        load_weights(trained, tmp_path / "missing.safetensors")
    save_file(trained.state_dict() | {"fc.bias": torch.zeros(3)}, tmp_path / "more.safetensors")
    with pytest.raises(WorkloadError, match="the tensor 'fc.bias' has no place in ResNet"):
        load_weights(trained, tmp_path / "more.safetensors")
    save_file(trained.state_dict() | {"linear.bias": torch.zeros(3)}, tmp_path / "shape.safetensors")
    with pytest.raises(WorkloadError, match=r"'linear.bias' is \(3,\); the model needs \(5,\)"):
        load_weights(trained, tmp_path / "shape.safetensors")
