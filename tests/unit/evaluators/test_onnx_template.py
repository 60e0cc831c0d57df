"""Files of candidates are rewritten also where forward() computes tensors that no parameter holds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from onnxruntime import InferenceSession
from test_evaluator import run_onnx
from torch import nn
from torch.nn.utils import parametrizations

from nets import images, shaken
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.errors import EvaluationFailed, ModelError
from secateur.evaluators.onnx_export import check_size, export
from secateur.evaluators.onnx_template import make_template
from secateur.workloads.transformer import Sizes, TextClassifier, VisionTransformer


class Recurrent(nn.Module):
    """An LSTM reads a convolution's channels row by row; its weights are reordered in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.two(F.relu(self.one(x)))).mean(3).transpose(1, 2)
        return self.head(F.relu(self.hidden(self.lstm(x)[0][:, -1])))


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight at each call."""

    def forward(self, x):
        mean, spread = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (spread + 1e-5), self.bias, padding=1)


class Three(nn.Module):
    """Three convolutions, the middle one special, each with a batch norm behind."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 8, 3, padding=1), middle, nn.Conv2d(6, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(6), nn.BatchNorm2d(8)])
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        for layer, norm in zip((self.one, self.two, self.three), self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return self.head(x.mean((2, 3)))


def test_weights_that_are_rewritten_are_kept_once():
    model = shaken(
        nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(64 * 16, 64))
    )
    template = make_template(model, (images(),))
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    assert len(template.dense) > weights
    assert template.parts.graph.ByteSize() < 0.1 * weights
    assert not template.parts.values


def test_a_model_that_no_file_can_hold_is_refused_before_anything_is_copied():
    model = nn.Linear(2**15, 2**15, device="meta")
    check_size(nn.Linear(2**14, 2**14, device="meta"))
    with pytest.raises(
        ModelError, match=r"holds 4\.3 GB of weights, and an ONNX file holds at most 2\.1 GB\. Compress a part"
    ):
        export(model, (torch.zeros(1, 2**15, device="meta"),))


def rewritten_like_the_module(model: nn.Module, names: set[str]) -> None:
    found = find_groups(model, (images(),))
    groups = [group for group in found.groups if group.name in names]
    assert {group.name for group in groups} == names
    smaller = apply(
        model, without(groups, {group.name: group.removable[1 : min(4, group.width - 1)] for group in groups})
    )
    file = make_template(model, (images(),)).render(smaller)
    x = images(3, seed=4)
    torch.testing.assert_close(run_onnx(file, x), smaller(x), rtol=1e-3, atol=1e-4)


def test_what_no_candidate_touches_stays_as_exported():
    torch.manual_seed(0)
    rewritten_like_the_module(shaken(Recurrent()), {"one", "hidden"})


def test_weight_norm_as_a_parametrization_is_rewritten():
    torch.manual_seed(0)
    model = shaken(Three(parametrizations.weight_norm(nn.Conv2d(8, 6, 3, padding=1))))
    rewritten_like_the_module(model, {"one", "two", "three"})


def test_a_weight_that_forward_computes_is_exported_only_where_it_changes():
    torch.manual_seed(0)
    model = shaken(Three(Standardised(8, 6, 3, padding=1)))
    rewritten_like_the_module(model, {"three"})
    with pytest.raises(
        EvaluationFailed, match=r"two\.(weight|bias).* changes, from which forward\(\) computes tensors"
    ):
        rewritten_like_the_module(model, {"two"})


def test_other_weights_are_noticed():
    torch.manual_seed(0)
    model = shaken(Recurrent())
    template = make_template(model, (images(),))
    with torch.no_grad():
        model.lstm.weight_hh_l0.add_(0.01)
    with pytest.raises(EvaluationFailed, match="lstm.weight_hh_l0 changes"):
        template.render(model)


def test_a_transformer_is_rewritten_whatever_heads_and_hidden_channels_leave():
    torch.manual_seed(0)
    model = shaken(VisionTransformer(Sizes(24, 2, 3, 96), size=8, patch=4, channels=3, classes=5))
    rewritten_like_the_module(
        model, {"patches", "blocks.0.attention.query", "blocks.0.expand", "blocks.1.attention.query", "blocks.1.expand"}
    )


class Pixels(nn.Module):
    """Pixels become tokens, and an image again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 6), nn.Linear(6, 5)

    def forward(self, x):
        rows = self.two(F.relu(self.one(x)).flatten(2).transpose(1, 2))
        image = F.relu(rows).transpose(1, 2).unflatten(2, x.shape[2:])
        return self.head(image.mean((2, 3)))


def test_tokens_that_become_an_image_again_are_rewritten():
    torch.manual_seed(0)
    rewritten_like_the_module(shaken(Pixels()), {"one", "two"})


def test_a_transformer_of_sentences_of_any_length_is_rewritten():
    torch.manual_seed(0)
    model = shaken(TextClassifier(Sizes(16, 2, 2, 24), words=20, longest=16, classes=3))
    inputs = {"ids": torch.arange(12).view(2, 6) % 7, "mask": torch.arange(12).view(2, 6) % 6 < 4}
    template = make_template(model, inputs, dynamic_axes={"ids": {1: "length"}, "mask": {1: "length"}})
    groups = find_groups(model, inputs).groups
    hidden = "blocks.0.attention.output"
    assert {hidden, "blocks.0.attention.query", "blocks.1.expand"} <= {group.name for group in groups}
    smaller = apply(model, without(groups, {group.name: group.removable[:1] for group in groups}))
    session = InferenceSession(template.render(smaller))
    for length in (3, 6, 11):
        ids = torch.arange(2 * length).view(2, length) % 20
        mask = torch.arange(length).expand(2, -1) < length - 1
        (found,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), smaller(ids, mask), rtol=1e-3, atol=1e-4)
