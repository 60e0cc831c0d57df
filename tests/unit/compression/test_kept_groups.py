from __future__ import annotations

import pytest
import torch

from nets import images, network, residual, shaken
from secateur.compression import kept_groups as module
from secateur.compression.groups import find_groups
from secateur.compression.kept_groups import keep_groups, kept_groups
from secateur.workloads.resnet import ResNet

EXAMPLE = (images(),)


@pytest.fixture
def file(tmp_path):
    model = network("residual")
    keep_groups(tmp_path / "groups.json", find_groups(model, EXAMPLE), model, EXAMPLE)
    return tmp_path / "groups.json"


@pytest.fixture
def searches(monkeypatch):
    """How often groups were found anew."""
    calls = []
    monkeypatch.setattr(module, "find_groups", lambda *given: (calls.append(given), find_groups(*given))[1])
    return calls


def test_groups_are_read_as_they_were_found(file, searches):
    model = network("residual")
    assert kept_groups(file, model, EXAMPLE) == find_groups(model, EXAMPLE)
    assert not searches, "nothing is traced or proven again"


def test_there_need_not_be_a_file(tmp_path, searches):
    for nothing in (None, tmp_path / "nothing.json"):
        assert kept_groups(nothing, network("residual"), EXAMPLE).groups
    assert len(searches) == 2


@pytest.mark.parametrize("what", ["other weights", "other network", "other example", "other version", "damaged"])
def test_groups_of_something_else_are_found_anew(what, file, searches, monkeypatch):
    model, example = network("residual"), EXAMPLE
    if what == "other weights":
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
    elif what == "other network":
        model = network("VGG")
    elif what == "other example":
        example = (torch.randn(2, 3, 16, 16),)
    elif what == "other version":
        monkeypatch.setattr(module, "version", lambda _: "9.9")
    else:
        file.write_bytes(file.read_bytes()[:-20])
    assert kept_groups(file, model, example) == find_groups(model, example)
    assert len(searches) == 1


class Rewritten(ResNet):
    """The same layers and weights; forward() has been edited meanwhile."""

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x))).flip(1)
        return self.linear(self.layer2(self.layer1(x)).mean((2, 3)))


def test_an_edited_forward_shows(file, searches):
    model = network("residual")
    model.__class__ = type("ResNet", (Rewritten,), {})
    assert str(model) == str(shaken(residual())), "nothing but forward() differs"
    found = kept_groups(file, model, EXAMPLE)
    assert len(searches) == 1
    assert found != find_groups(network("residual"), EXAMPLE), "channels are coupled in another order"
    assert found == find_groups(model, EXAMPLE)
