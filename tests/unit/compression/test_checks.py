"""What would make tracing or the proof fail for a reason of its own is said as what it is, with the layer's name."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import nn
from torch.nn.utils import parametrizations, prune

from nets import TwoConvolutions, images, network, shaken
from secateur.compression.copies import copied
from secateur.compression.costs import parameter_count, parameters_after
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.transforms.channels import without
from secateur.errors import ModelError


class Plain(TwoConvolutions):
    def forward(self, x):
        return self.head(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))


class ActiveDropout(Plain):
    def forward(self, x):
        return self.head(F.dropout(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3))))


class Noisy(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.noise = AddNoise()

    def forward(self, x):
        return super().forward(self.noise(x))


class AddNoise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class InPlace(Plain):
    def forward(self, x):
        return super().forward(x.clamp_(-1, 1))


class Undefined(Plain):
    def forward(self, x):
        return super().forward(torch.log(self.one(x).mean() - 1e9) + x)


class Locked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def with_bad_statistics() -> nn.Module:
    model = network("residual")
    model.get_submodule("layer1.0.bn1").running_var[3] = float("nan")
    return model


def with_old_weight_norm() -> nn.Module:
    model = Plain()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model.two)
    return model


def with_mask() -> nn.Module:
    model = Plain()
    prune.l1_unstructured(model.one, "weight", 0.5)
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ActiveDropout, r"Two runs of the dense model on the same input differ by .*dropout that stays active"),
        (Noisy, r"Two runs of the dense model .*first behind layer 'noise' \(AddNoise\)"),
        (InPlace, r"changes its input 'input' in place.*x = x.clone\(\)"),
        (Undefined, r"output for the example inputs holds NaN or infinity, first behind layer"),
        (with_bad_statistics, r"batch norm 'layer1.0.bn1' holds NaN or infinity in 1 of 8 entries of its running_var"),
        (with_old_weight_norm, r"weights of 'two' .*remove_weight_norm\(model.get_submodule\('two'\)\) in build_model"),
        (with_mask, r"weights of 'one' .*prune.remove\(model.get_submodule\('one'\), 'weight'\) in build_model"),
        (Locked, r"cannot be copied: its attribute 'lock' .*cannot pickle .*__deepcopy__"),
    ],
)
def test_models_that_cannot_be_proven_are_refused_in_one_line(model, words):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=words) as refused:
        find_groups(model().eval(), (images(),))
    assert "\n" not in str(refused.value)


def test_the_example_is_left_as_it_was():
    model, x = InPlace().eval(), 3 * images()
    before = x.clone()
    with pytest.raises(ModelError):
        find_groups(model, (x,))
    assert torch.equal(x, before)


def test_parametrized_weights_are_cut_like_plain_ones():
    torch.manual_seed(0)
    model = shaken(Plain())
    parametrizations.weight_norm(model.one)
    parametrizations.weight_norm(model.two)
    groups = find_groups(model, (images(),)).groups
    assert [group.name for group in groups] == ["one", "two"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = without(groups, {"one": (0, 3, 4), "two": (1,)})
    x = images(3, seed=5)
    torch.testing.assert_close(apply(model, plan, shared=True)(x), reference(model, plan)(x))
    torch.testing.assert_close(apply(model, plan)(x), reference(model, plan)(x))
    assert parameters_after(model, plan) == parameter_count(apply(model, plan))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_shared_copy_owns_only_what_it_loses():
    model = network("residual")
    group = find_groups(model, (images(),)).groups[1]
    smaller = apply(model, without([group], {group.name: group.removable[:2]}), shared=True)
    touched = {member.module for member in group.members}
    original = dict(model.named_parameters())
    for name, parameter in smaller.named_parameters():
        assert (parameter is original[name]) == (name.rpartition(".")[0] not in touched), name


def test_a_cut_network_shares_nothing_with_the_whole_one():
    model = network("residual")
    group = find_groups(model, (images(),)).groups[1]
    smaller = apply(model, without([group], {group.name: group.removable[:2]}))
    whole = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not whole & {tensor.data_ptr() for tensor in smaller.state_dict().values()}


def test_a_copy_owns_everything():
    model = network("VGG")
    owned = {tensor.data_ptr() for tensor in copied(model).state_dict().values()}
    assert not owned & {tensor.data_ptr() for tensor in model.state_dict().values()}
