from __future__ import annotations

import pytest
import torch

from nets import images, network, residual, shaken
from secateur.compression import kept_groups as module
from secateur.compression.groups import find_groups
from secateur.compression.kept_groups import keep_groups, kept_groups
from secateur.workloads.resnet import ResNet

EXAMPLE = (images(),)
ANEW = object()


@pytest.fixture(scope="module")
def found():
    return find_groups(network("residual"), EXAMPLE)


@pytest.fixture
def file(tmp_path, found):
    keep_groups(tmp_path / "groups.json", found, network("residual"), EXAMPLE)
    return tmp_path / "groups.json"


@pytest.fixture
def searches(monkeypatch):
    """The models and inputs whose groups were found anew; what is found is `ANEW`."""
    calls = []
    monkeypatch.setattr(module, "find_groups", lambda *given: (calls.append(given[:2]), ANEW)[1])
    return calls


def test_groups_are_read_as_they_were_found(file, found, searches):
    assert kept_groups(file, network("residual"), EXAMPLE) == found
    assert not searches, "nothing is traced or proven again"


def test_there_need_not_be_a_file(tmp_path, searches):
    for nothing in (None, tmp_path / "nothing.json"):
        assert kept_groups(nothing, network("residual"), EXAMPLE) is ANEW
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
    assert kept_groups(file, model, example) is ANEW
    assert searches == [(model, example)]


class Rewritten(ResNet):
    """The same layers and weights; forward() has been edited meanwhile."""

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x))).flip(1)
        return self.linear(self.layer2(self.layer1(x)).mean((2, 3)))


def test_an_edited_forward_shows(file, found, searches):
    model = network("residual")
    model.__class__ = type("ResNet", (Rewritten,), {})
    assert str(model) == str(shaken(residual())), "nothing but forward() differs"
    assert kept_groups(file, model, EXAMPLE) is ANEW
    assert len(searches) == 1
    assert found != find_groups(model, EXAMPLE), "channels are coupled in another order"
