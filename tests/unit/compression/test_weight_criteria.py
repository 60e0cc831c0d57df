from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from nets import images, network
from secateur.compression.compensation.gram import grams_of
from secateur.compression.criteria import weights as criteria
from secateur.compression.criteria.weights import WEIGHT_METHODS, LayerWeights, WeightMethod
from secateur.compression.groups import find_groups
from secateur.compression.masks import by_row
from secateur.compression.weight_saliency import weight_saliencies
from secateur.errors import WorkloadError
from secateur.testing.examples import workload

VALUES = torch.tensor([[1.0, -2.0], [3.0, 0.5]])[..., None]


def seen(**changes):
    return dataclasses.replace(LayerWeights("a", VALUES), **changes)


def test_magnitude_and_lamp():
    assert criteria.magnitude(seen()).flatten().tolist() == [1.0, 2.0, 3.0, 0.5]
    # squares 1, 4, 9, .25 over what is not smaller: 14, 13, 9, 14.25
    torch.testing.assert_close(criteria.lamp(seen()).flatten(), torch.tensor([1 / 14, 4 / 13, 1.0, 0.25 / 14.25]))


def test_wanda_compares_what_a_row_reads():
    gram = torch.diag(torch.tensor([9.0, 1.0]))[None]
    # |w| times 3 and 1: rows (3, 2) and (9, .5)
    assert criteria.wanda(seen(gram=gram)).flatten().tolist() == [1.0, 0.5, 1.0, 0.5]
    assert criteria.wanda(seen()).flatten().tolist() == [0.5, 1.0, 1.0, 0.5], "without, inputs count alike"


def test_obs_divides_by_the_inverse_of_what_is_read():
    gram = torch.tensor([[[2.0, 1.0], [1.0, 3.0]]])
    inverse = torch.linalg.inv(gram[0] + criteria.RIDGE * 2.5 * torch.eye(2))
    expected = VALUES[..., 0].square() / inverse.diagonal()
    torch.testing.assert_close(criteria.obs(seen(gram=gram))[..., 0], expected)


def test_each_group_of_a_convolution_reads_inputs_of_its_own():
    grams = torch.stack([torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([1.0, 16.0]))])
    read = seen(gram=grams).of_columns(lambda gram: gram.diagonal())
    assert read[..., 0].tolist() == [[4.0, 1.0], [1.0, 16.0]]


def test_snip_is_the_first_order_change():
    gradients = torch.tensor([[2.0, 1.0], [-1.0, 0.0]])[..., None]
    assert criteria.snip(seen(gradients=gradients)).flatten().tolist() == [2.0, 2.0, 3.0, 0.0]


def test_grasp_keeps_what_the_gradient_lives_on_and_its_order():
    gradients = torch.tensor([[-1.0, 0.5], [1.0, 0.0]])[..., None]  # x = -1, -1, 3, 0
    assert criteria.grasp(seen(gradients=gradients)).flatten().tolist() == [0.25, 0.25, 0.875, 0.5]
    ascending = torch.tensor([-1e6, -2.0, -1e-6, 0.0, 1e-6, 2.0, 1e3])[None, :, None]
    scores = criteria.grasp(LayerWeights("a", torch.ones_like(ascending), gradients=ascending)).flatten()
    assert (scores.diff() > 0).all()


@pytest.fixture(scope="module")
def scores():
    made = workload()
    model = made.build_model()
    found = find_groups(model, made.example_inputs)
    groups = [*found.groups, *found.fixed]
    grams = grams_of(model, groups, made, 64)
    return model, groups, weight_saliencies(model, groups, [*WEIGHT_METHODS], made, grams)


def test_every_criterion_scores_every_weight(scores):
    _, groups, found = scores
    for group in groups:
        count = sum(len(w.rows) * w.inputs * w.kernel for w in group.weights)
        assert found[group.name].keys() == {f"weights/{name}" for name in WEIGHT_METHODS}
        for own in found[group.name].values():
            assert own.shape == (count,)
            assert torch.isfinite(own).all()
            assert (own >= 0).all()


def test_scores_lie_as_the_weights_do(scores):
    model, groups, found = scores
    for group in groups:
        layers = [model.get_submodule(w.layer) for w in group.weights]
        expected = torch.cat([by_row(layer, layer.weight).abs().flatten() for layer in layers])
        assert torch.equal(found[group.name]["weights/magnitude"], expected)


def test_snip_takes_the_gradient_of_the_mean_loss(scores):
    """Against one backward pass over the same samples."""
    model, groups, found = scores
    made = workload()
    from secateur.workloads.roles import collect

    (x,), y = collect(made.data.calibration, 256)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    weights = groups[-1].weights[0]
    layer = model.get_submodule(weights.layer)
    torch.testing.assert_close(
        found[groups[-1].name]["weights/snip"].view_as(layer.weight), (layer.weight * layer.weight.grad).abs(),
        rtol=1e-3, atol=1e-6,
    )  # fmt: skip
    model.zero_grad()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda w: w.values[0], "one score per weight"),
        (lambda w: -w.values.abs(), "must be finite and not negative"),
        (lambda w: w.values / 0, r"gives (inf|-inf|nan) for weight 0, 0, 0 of"),
    ],
)
def test_scores_that_are_none_are_refused(monkeypatch, wrong, words):
    monkeypatch.setitem(WEIGHT_METHODS._own, "wrong", WeightMethod(wrong, ""))
    model = network("residual")
    groups = find_groups(model, (images(),)).groups
    with pytest.raises(WorkloadError, match=words):
        weight_saliencies(model, groups, ["wrong"], workload(), {})


def test_a_criterion_without_finite_scores_is_left_out_of_all_groups_and_the_others_stay(monkeypatch):
    def fails_late(weights):
        return weights.values.abs() * (torch.nan if weights.name == "linear" else 1.0)

    monkeypatch.setitem(WEIGHT_METHODS._own, "wrong", WeightMethod(fails_late, ""))
    model = network("residual")
    found = find_groups(model, (images(),))
    told = {}
    scores = weight_saliencies(
        model, [*found.groups, *found.fixed], ["wrong", "magnitude"], workload(), {}, told.__setitem__
    )
    assert told.keys() == {"weights/wrong"}
    assert all(own.keys() == {"weights/magnitude"} for own in scores.values())
