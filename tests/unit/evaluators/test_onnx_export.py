"""Every axis that must be free is free in the exported file, whatever numbers the model makes of its shapes."""

from __future__ import annotations

import re

import pytest
import torch
from test_evaluator import run_onnx
from torch import Tensor, nn

from nets import images, shaken
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.errors import ModelError
from secateur.evaluators.onnx_export import export
from secateur.evaluators.onnx_template import make_template


class Reshaping(nn.Module):
    """Two layers, between which the batch is a number of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.flattened(self.one(x)))

    def flattened(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1)


class ByLength(Reshaping):
    def flattened(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


class ByInteger(Reshaping):
    def flattened(self, x: Tensor) -> Tensor:
        return x.view(int(x.shape[0]), -1) * (float(x.shape[0]) / len(x))


class Looping(Reshaping):
    def flattened(self, x: Tensor) -> Tensor:
        return torch.stack([x[i].flatten() for i in range(x.shape[0])])


class LoopingOverWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.stack([self.words(column) for column in ids.unbind(1)]).sum(0)


@pytest.mark.parametrize("network", [Reshaping, ByLength, ByInteger])
def test_a_batch_that_is_made_a_number_stays_free_and_files_of_candidates_are_rewritten(network):
    model = shaken(network())
    template = make_template(model, (images(1),))
    groups = find_groups(model, (images(1),)).groups
    cut = apply(model, without(groups, {groups[0].name: [0, 3]}))
    for module, file in ((model, template.dense), (cut, template.render(cut))):
        for batch in (1, 2, 5):
            x = images(batch)
            with torch.no_grad():
                torch.testing.assert_close(run_onnx(file, x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "inputs", "axes", "said"),
    [
        (Looping, (images(1),), {}, r"`return .*range\(x.shape\[0\]\).*` at .*{file}:\d+ fixes dimension 0 of 'input' at 2"),
        (
            LoopingOverWords,
            (torch.ones(2, 7, dtype=torch.int64),),
            {"input": {1: "length"}},
            r"`return .*unbind\(1\).*` at .*{file}:\d+ fixes dimension 1 of 'input' at 7",
        ),
    ],
)  # fmt: skip
def test_an_axis_that_the_model_fixes_is_an_error_with_the_line(network, inputs, axes, said, capfd):
    with pytest.raises(ModelError, match=said.replace("{file}", re.escape("test_onnx_export.py"))):
        export(network(), inputs, axes)
    assert capfd.readouterr().err == ""
