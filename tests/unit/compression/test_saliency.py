from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import kendalltau
from torch import nn
from torch.utils.data import TensorDataset

from conftest import make_workload
from nets import images, network, shaken
from secateur.compression import saliency
from secateur.compression.compensation.batch_norm import dense_statistics, recalibrate
from secateur.compression.criteria import METHODS, Method, available_methods
from secateur.compression.criteria.channel_tensors import ChannelTensors, arranged
from secateur.compression.criteria.obs import Reading
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.saliency import compute_saliencies
from secateur.compression.transforms.channels import without
from secateur.errors import WorkloadError
from secateur.records import Group, Member
from secateur.workloads import portions
from secateur.workloads.roles import collect


def tensors(**given) -> ChannelTensors:
    """A group of three channels, every layer with a filter for each, without biases where none are given."""
    writers = given.get("producers", [])
    filled = {field.name: [] for field in dataclasses.fields(ChannelTensors)} | {
        "name": "g",
        "channels": 3,
        "removable": (0, 1, 2),
        "written": [torch.ones(len(w), dtype=torch.bool) for w in writers],
        "biases": [torch.zeros(len(w), 0) for w in writers],
        "biases_grad": [torch.zeros(len(w), 0) for w in writers],
    }
    return ChannelTensors(**(filled | given))


ONES = torch.ones(3, 2)
GRAD = torch.tensor([[1.0, 1.0], [5.0, 2.0], [0.0, -3.0]])
BIAS = torch.tensor([[0.0], [1.0], [2.0]])
WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 1.0], [2.0, 2.0]])


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        ("l1", {"producers": [WEIGHT, WEIGHT]}, [14.0, 2.0, 8.0]),
        ("l2", {"producers": [WEIGHT]}, [5.0, 1.0, 8**0.5]),
        ("l2", {"producers": [WEIGHT, WEIGHT]}, [50**0.5, 2**0.5, 4.0]),
        ("next_layer", {"consumers": [WEIGHT], "producers": [10 * WEIGHT.flip(0)]}, [5.0, 1.0, 8**0.5]),
        ("bn_scale", {"scales": [torch.tensor([[-2.0], [1.0], [0.5]])]}, [2.0, 1.0, 0.5]),
        # Distances between the rows: 0–1 √(9+25), 0–2 √(1+36), 1–2 √(4+1).
        ("fpgm", {"producers": [WEIGHT]}, [34**0.5 + 37**0.5, 34**0.5 + 5**0.5, 37**0.5 + 5**0.5]),
        # Energies 25, 1, 8: ascending 1/34, 8/33, 25/25.
        ("lamp", {"producers": [WEIGHT]}, [1.0, 1 / 34, 8 / 33]),
        # The middle channel has no filter there (a padded shortcut): the others are as far as they were, and it is at no distance.
        ("fpgm", {"producers": [WEIGHT], "written": [torch.tensor([True, False, True])]}, [37**0.5, 0.0, 37**0.5]),
        # Two layers that read it: what they do to the loss adds up with its sign.
        (
            "taylor",
            {"consumers": [WEIGHT, ONES], "consumers_grad": [GRAD, -ONES], "producers": [WEIGHT]},
            [3.0, 0.0, 8.0],
        ),
        # Nothing reads it: what writes it counts, bias included.
        ("taylor", {"producers": [WEIGHT], "producers_grad": [GRAD]}, [1.0, 2.0, 6.0]),
        (
            "taylor",
            {"producers": [WEIGHT], "producers_grad": [GRAD], "biases": [BIAS], "biases_grad": [2 * BIAS]},
            [1.0, 4.0, 2.0],
        ),
        # Half of the square of taylor's 3, 0, 8.
        ("hessian", {"consumers": [WEIGHT, ONES], "consumers_grad": [GRAD, -ONES]}, [4.5, 0.0, 32.0]),
        # Two readers: the mean over what each reads of the channel (two inputs of one, one of the other), then over both.
        (
            "activation",
            {"magnitudes": [ONES * 3, torch.tensor([[1.0], [0.0], [2.0]])]},
            [2.0, 1.5, 2.5],
        ),
        ("apoz", {"nonzeros": [torch.tensor([[0.5, 1.0], [0.0, 0.0], [1.0, 1.0]])]}, [0.75, 0.0, 1.0]),
        # Inputs that tell nothing of each other, of power 1: squares of the weights, 9 + 16, 0 + 1, 4 + 4, each after the lesser ones.
        (
            "obs",
            {"readings": [Reading(WEIGHT.T, torch.eye(3), torch.arange(3)[:, None])]},
            [1.01, 1.01 * 1 / 34, 1.01 * 9 / 34],
        ),
        # Queries and keys: each of them sees the whole change, so it counts once.
        ("taylor", {"producers": [WEIGHT, WEIGHT], "producers_grad": [GRAD, GRAD]}, [1.0, 2.0, 6.0]),
    ],
)
def test_criteria_by_hand(method, given, expected):
    torch.testing.assert_close(METHODS[method].score(tensors(**given)), torch.tensor(expected))


class Small(nn.Module):
    """A convolution with a bias, a batch norm, a function that does not vanish at zero, and what reads the channels."""

    def __init__(self, function=nn.functional.silu):
        super().__init__()
        self.write = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.read = nn.Conv2d(6, 4, 3)
        self.head = nn.Linear(4, 5)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.read(self.function(self.norm(self.write(x))))).mean((2, 3)))


@pytest.fixture
def one_batch(monkeypatch):
    monkeypatch.setattr(saliency, "BATCHES", 1)


def scored(model, method="taylor"):
    """Scores of `write`'s channels, and the change of the same loss where each of them alone is removed."""
    workload = make_workload(model.eval())
    group = next(g for g in find_groups(model, workload.example_inputs).groups if g.name == "write")
    (x,), y = collect(workload.data.calibration, 32)
    scores = compute_saliencies(model, [group], [method], workload)["write"][method]
    with torch.no_grad():
        whole = workload.loss(model(x), y)
        losses = [workload.loss(apply(model, without([group], {"write": (c,)}))(x), y) for c in range(group.width)]
    return scores, torch.stack(losses) - whole


@pytest.mark.usefixtures("one_batch")
@pytest.mark.parametrize("function", [nn.functional.relu, nn.functional.silu, torch.sigmoid, torch.cos])
def test_taylor_is_the_change_of_the_loss_where_that_is_small(function):
    """Readers that hardly listen: the first order is then nearly everything, whatever function stands in between."""
    torch.manual_seed(0)  # of some draws a ReLU bends
    model = Small(function)
    with torch.no_grad():
        shaken(model).read.weight.mul_(0.003)
    scores, change = scored(model)
    torch.testing.assert_close(scores, change.abs(), rtol=0.03, atol=1e-6)


@pytest.mark.usefixtures("one_batch")
def test_taylor_ranks_channels_of_a_trained_looking_net_as_their_removal_does():
    scores, change = scored(shaken(Small()))
    assert kendalltau(scores, change.abs()).statistic > 0.5


@pytest.mark.usefixtures("one_batch")
def test_a_channel_of_scale_zero_whose_shift_matters_is_not_the_first_to_go():
    model = shaken(Small(nn.functional.relu))
    with torch.no_grad():
        model.norm.weight[2], model.norm.bias[2] = 0.0, 20.0
    scores, change = scored(model)
    assert int(change.abs().argmax()) == int(scores.argmax()) == 2


@pytest.mark.usefixtures("one_batch")
def test_taylor_of_a_batch_norm_and_relu_is_that_of_scale_and_shift():
    model = shaken(Small(nn.functional.relu))
    workload = make_workload(model)
    group = next(g for g in find_groups(model, workload.example_inputs).groups if g.name == "write")
    score = compute_saliencies(model, [group], ["taylor"], workload)["write"]["taylor"]
    (x,), y = collect(workload.data.calibration, 32)
    workload.loss(model(x), y).backward()
    norm = model.norm
    torch.testing.assert_close(score, (norm.weight * norm.weight.grad + norm.bias * norm.bias.grad).abs())


def test_hessian_is_the_change_of_the_loss_at_a_minimum_where_the_mean_gradient_says_nothing():
    """Gaussian residuals of variance 1, as many on either side: the Fisher information is then exactly the curvature."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    inputs = torch.randn(16, 3).repeat(2, 1)
    targets = model(inputs).detach() + torch.tensor([1.0, -1.0]).repeat_interleave(16)[:, None]

    def loss(outputs, targets):
        return (outputs - targets).square().mean() / 2

    data = SimpleNamespace(calibration=TensorDataset(inputs, targets))
    workload = SimpleNamespace(data=data, loss=loss, example_inputs=inputs[:2])
    group = find_groups(model, (inputs[:2],)).groups[0]
    with torch.no_grad():
        losses = [loss(apply(model, without([group], {"0": (c,)}))(inputs), targets) for c in range(6)]
    scores = compute_saliencies(model, [group], ["taylor", "hessian"], workload)["0"]
    torch.testing.assert_close(scores["hessian"], torch.stack(losses) - loss(model(inputs), targets).detach())
    torch.testing.assert_close(scores["taylor"], torch.zeros(6), atol=1e-6, rtol=0)


def test_activity_is_that_of_what_layers_read():
    """Behind ReLU and pooling; one of the readers has four inputs of each channel."""

    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.write, self.conv, self.linear = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 3), nn.Linear(24, 5)

        def forward(self, x):
            y = nn.functional.relu(self.write(x))
            return (
                self.linear(nn.functional.adaptive_max_pool2d(y, 2).flatten(1)) + self.conv(y).mean((1, 2, 3))[:, None]
            )

    torch.manual_seed(0)
    model = Forked()
    workload = make_workload(model)
    group = find_groups(model, workload.example_inputs).groups[0]
    (x,), _ = collect(workload.data.calibration, 256)
    with torch.no_grad():
        y = nn.functional.relu(model.write(x))
    read = (y, nn.functional.adaptive_max_pool2d(y, 2))
    scores = compute_saliencies(model, [group], ["activation", "apoz"], workload)["write"]
    for method, statistic in (("activation", torch.abs), ("apoz", torch.sign)):
        torch.testing.assert_close(scores[method], sum(statistic(r).mean((0, 2, 3)) for r in read) / 2)


def test_the_shift_that_bn_scale_leaves_out_is_given_back_by_recalibration():
    """A channel of scale 0 is a constant, however large; the batch norm behind it takes the change."""
    model = shaken(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
        )
    )
    with torch.no_grad():
        model[1].weight[2], model[1].bias[2] = 0.0, 2.0
    x = images(32)
    group = next(g for g in find_groups(model, (x[:2],)).groups if g.name == "0")
    plan = without([group], {"0": (2,)})
    module = apply(model, plan)
    with torch.no_grad():
        assert (module(x) - model(x)).abs().max() > 0.05
        recalibrate(module, plan, dense_statistics(model, (x,)))
        torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-4)


def test_scores_with_gradients_are_root_mean_squares_over_batches():
    model = shaken(Small())
    workload = make_workload(model)
    groups = find_groups(model, workload.example_inputs).groups
    each = []

    def spy(tensors):
        each.append(METHODS["taylor"].score(tensors))
        return each[-1]

    name = groups[0].name
    METHODS["spy"] = Method(spy, "watches", needs_gradients=True)
    try:
        found = compute_saliencies(model, groups[:1], ["spy"], workload)[name]["spy"]
    finally:
        del METHODS["spy"]
    torch.testing.assert_close(found, ((each[0] ** 2 + each[1] ** 2) / 2).sqrt())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda t: torch.full((t.channels,), math.nan), "gives nan for channel 0 of"),
        (lambda t: torch.arange(t.channels) - 1.0, "gives -1 for channel 0 of"),
        (lambda t: torch.zeros(t.channels, 2), r"gives \(8, 2\) for 'conv1'; a tensor \(8,\) is needed"),
        (lambda _: 1.0, "gives float for"),
    ],
)
@pytest.mark.parametrize("needs_gradients", [False, True])
def test_what_a_criterion_answers_is_checked(workload, monkeypatch, answer, said, needs_gradients):
    model = workload.build_model()
    groups = find_groups(model, workload.example_inputs).groups
    monkeypatch.setitem(METHODS, "mine", Method(answer, "the project's own", needs_gradients=needs_gradients))
    with pytest.raises(WorkloadError, match=f"criterion 'mine' {said}"):
        compute_saliencies(model, groups, ["mine"], workload)


def test_a_gradient_that_is_not_finite_is_not_sorted(workload):
    model = workload.build_model()
    groups = find_groups(model, workload.example_inputs).groups

    def root_of_zero(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets) + torch.sqrt(
            outputs.sum() * 0
        )  # 0, and its slope is not finite

    with pytest.raises(WorkloadError, match="criterion 'taylor' gives nan"):
        compute_saliencies(model, groups, ["taylor"], dataclasses.replace(workload, loss=root_of_zero))


def test_a_method_that_cannot_score_is_told_of_and_the_others_go_on(workload, monkeypatch):
    """One is NaN in one group only, and one reads a loss that is not finite: neither has scores anywhere."""

    def faulty(tensors):
        return torch.full((tensors.channels,), math.nan if tensors.name == groups[1].name else 1.0)

    model, failures = workload.build_model(), {}
    groups = find_groups(model, workload.example_inputs).groups
    monkeypatch.setitem(METHODS, "mine", Method(faulty, "the project's own"))
    broken = dataclasses.replace(workload, loss=lambda outputs, _: outputs.mean() / 0.0)
    asked = ["l1", "mine", "taylor", "hessian", "activation"]
    scores = compute_saliencies(model, groups, asked, broken, None, failures.__setitem__)
    assert {name: set(by) for name, by in scores.items()} == {g.name: {"l1", "activation"} for g in groups}
    assert {name: str(error).partition(". ")[0] for name, error in failures.items()} == {
        "mine": f"The criterion 'mine' gives nan for channel 0 of '{groups[1].name}'; scores "
        "must be finite and not negative",
        "taylor": "The loss of the dense model on calibration batch 0 is inf",
        "hessian": "The loss of the dense model on calibration sample 0 is inf",
    }
    assert all(p.grad is None for p in model.parameters())


def test_coupled_layers_are_arranged_by_root_channel():
    """Channel 0 of the stem is channel 4 of the second stage behind a padded shortcut: its weights must count for channel 0."""
    model = network("option-A residual")
    with torch.no_grad():
        model.get_submodule("layer2.0.conv2").weight[4] = 100.0
    groups = find_groups(model, (images(),)).groups
    scores = compute_saliencies(model, groups, ["l1"], make_workload(model))
    assert int(scores["conv1"]["l1"].argmax()) == 0


def test_a_flattened_feature_map_counts_for_its_channel():
    model = network("VGG")
    with torch.no_grad():
        model[5].weight[:, 4 * 7 + 2] = 50.0  # one of the four inputs that channel 7 becomes
    groups = find_groups(model, (images(),)).groups
    scores = compute_saliencies(model, groups, ["next_layer"], make_workload(model))
    assert int(scores["2.0"]["next_layer"].argmax()) == 7


def test_scores_are_finite_and_the_same_every_time(workload):
    model = workload.build_model()
    groups = find_groups(model, workload.example_inputs).groups
    first = compute_saliencies(model, groups, list(METHODS), workload)
    second = compute_saliencies(model, groups, list(METHODS), workload)
    for group in groups:
        assert set(first[group.name]) == set(METHODS)
        for method, scores in first[group.name].items():
            assert scores.shape == (group.width,)
            assert torch.isfinite(scores).all()
            assert (scores >= 0).all()
            torch.testing.assert_close(scores, second[group.name][method])
    assert all(p.grad is None for p in model.parameters())


def test_batch_norm_scales_need_a_batch_norm():
    model = network("sigmoid")
    group = find_groups(model, (images(),)).groups[0]
    assert available_methods(group, ["l1", "bn_scale"]) == ("l1",)


def test_activations_need_a_layer_that_reads():
    group = find_groups(network("sigmoid"), (images(),)).groups[0]
    unread = dataclasses.replace(group, members=tuple(member for member in group.members if member.side == "out"))
    names = ["l1", "activation", "apoz", "obs"]
    assert available_methods(group, names) == tuple(names)
    assert available_methods(unread, names) == ("l1",)


def test_a_loss_that_is_not_finite_is_said(workload):
    model = workload.build_model()
    broken = dataclasses.replace(
        workload, loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets) / 0.0
    )
    groups = find_groups(model, workload.example_inputs).groups
    with pytest.raises(WorkloadError, match="loss of the dense model on calibration batch 0 is inf"):
        compute_saliencies(model, groups, ["taylor"], broken)


def test_hidden_units_are_ranked_by_all_their_gates():
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    gates = torch.arange(4) * 4 + 2  # of unit 2
    with torch.no_grad():
        for name, tensor in layer.named_parameters():
            if name.startswith("weight"):
                tensor[gates] *= 0.01
    units = tuple(range(4))
    member = Member("0", "out", "recurrent", units, units)
    group = Group("0", "LSTM", (member,), 4, units, 0, 0)
    scores = METHODS["l2"].score(arranged(group, {"0": layer}))
    weights = [tensor.unflatten(0, (4, 4)) for name, tensor in layer.named_parameters() if name.startswith("weight")]
    expected = sum(tensor.square().sum((0, 2)) for tensor in weights).sqrt()
    torch.testing.assert_close(scores, expected)
    assert scores.argmin() == 2


def test_gradients_of_a_batch_that_does_not_fit_are_summed_over_portions_and_rank_the_same(monkeypatch, one_batch):
    model = shaken(Small())
    whole, _ = scored(model)
    workload, sizes = make_workload(model.eval()), []
    monkeypatch.setattr(
        portions, "MOST_ENTRIES", 20 * portions.MOST_ENTRIES // portions.fitting(model, workload.example_inputs)
    )
    hook = model.register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    group = next(g for g in find_groups(model, workload.example_inputs).groups if g.name == "write")
    del sizes[:]
    found = compute_saliencies(model, [group], ["taylor"], workload)["write"]["taylor"]
    hook.remove()
    assert sum(sizes) == 32
    assert max(sizes) <= 5
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
