from __future__ import annotations

import pytest
import torch
from torch import nn

from nets import NETWORKS, images, network
from secateur.compression.compensation.batch_norm import batch_norms, dense_statistics, recalibrate
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.workloads import portions

WITH_NORMS = [name for name in NETWORKS if batch_norms(network(name))]


@pytest.mark.parametrize("name", WITH_NORMS)
def test_the_uncut_network_does_not_move(name):
    model = network(name)
    statistics = dense_statistics(model, (images(16),))
    untouched = apply(model, without([], {}))
    recalibrate(untouched, without([], {}), statistics)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(untouched.state_dict()[key], tensor, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", WITH_NORMS)
def test_images_that_do_not_fit_into_one_pass_run_in_portions_and_the_uncut_network_does_not_move(name, monkeypatch):
    model, x = network(name), images(10)
    monkeypatch.setattr(portions, "MOST_ENTRIES", 4 * portions.MOST_ENTRIES // portions.fitting(model, (x,)))
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    statistics = dense_statistics(model, (x,))
    assert len(statistics) == 3
    untouched = apply(model, without([], {}))
    said = recalibrate(untouched, without([], {}), statistics)
    assert max(sizes) == 4
    torch.testing.assert_close(said, model(x), rtol=1e-3, atol=1e-4)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(untouched.state_dict()[key], tensor, rtol=1e-4, atol=1e-5, msg=key)


def test_portions_say_what_all_images_say():
    model, x = network("residual"), images(64)
    groups = find_groups(model, (x[:2],)).groups
    plan = without(groups, {g.name: g.removable[::3] for g in groups})
    found = []
    for most in (portions.MOST_ENTRIES, portions.MOST_ENTRIES * 16 // portions.fitting(model, (x,))):
        smaller = apply(model, plan)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(portions, "MOST_ENTRIES", most)
            recalibrate(smaller, plan, dense_statistics(model, (x,)))
        found.append(torch.cat([layer.running_var.log() for layer in batch_norms(smaller).values()]))
    before = torch.cat([layer.running_var.log() for layer in batch_norms(apply(model, plan)).values()])
    assert (found[1] - found[0]).norm() < 0.2 * (found[0] - before).norm()


def reference(
    model: nn.Module, plan, dense_model: nn.Module, x: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The rule written down naively: layer by layer, each with its input from the layers corrected before it."""
    expected = {}
    dense_inputs, inputs = {}, {}

    def remember(store, name):
        return lambda _, args: store.__setitem__(name, args[0].detach())

    hooks = [
        layer.register_forward_pre_hook(remember(dense_inputs, n)) for n, layer in batch_norms(dense_model).items()
    ]
    dense_model(x)
    for hook in hooks:
        hook.remove()
    for name in batch_norms(model):
        layer = model.get_submodule(name)
        hook = layer.register_forward_pre_hook(remember(inputs, name))
        with torch.no_grad():
            model(x)  # all layers before this one are corrected by now
        hook.remove()
        axes = (0, *range(2, inputs[name].dim()))
        keep = [c for c in range(dense_inputs[name].shape[1]) if c not in plan.removed["out"].get(name, ())]
        v_c, m_c = torch.var_mean(inputs[name], axes, correction=0)
        v_d, m_d = torch.var_mean(dense_inputs[name][:, keep], axes, correction=0)
        stretch = (v_c + layer.eps) / (v_d + layer.eps)
        layer.running_mean = m_c + (layer.running_mean - m_d) * stretch.sqrt()
        layer.running_var = (layer.running_var + layer.eps) * stretch - layer.eps
        expected[name] = (layer.running_mean, layer.running_var)
    return expected


@pytest.mark.parametrize("name", WITH_NORMS)
def test_one_pass_equals_the_rule_applied_layer_by_layer(name):
    model, x = network(name), images(16)
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {g.name: g.removable[::3] for g in groups})
    fast, slow = apply(model, plan), apply(model, plan)
    recalibrate(fast, plan, dense_statistics(model, (x,)))
    expected = reference(slow, plan, model, x)
    for layer, (mean, variance) in expected.items():
        found = fast.get_submodule(layer)
        torch.testing.assert_close(found.running_mean, mean, rtol=1e-3, atol=1e-4, msg=layer)
        torch.testing.assert_close(found.running_var, variance, rtol=1e-3, atol=1e-4, msg=layer)


def test_only_statistics_change_and_the_layers_are_left_in_evaluation_mode():
    model, x = network("residual"), images(16)
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {g.name: g.removable[::2] for g in groups})
    smaller = apply(model, plan)
    before = {key: tensor.clone() for key, tensor in smaller.state_dict().items()}
    recalibrate(smaller, plan, dense_statistics(model, (x,)))
    changed = {key for key, tensor in smaller.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert all(key.endswith(("running_mean", "running_var")) for key in changed)
    assert not any(layer.training for layer in smaller.modules())
    assert all(layer.momentum == 0.1 for layer in batch_norms(smaller).values())


def test_dead_channels_give_no_nan():
    model = network("VGG")
    with torch.no_grad():
        model[0][0].weight[0] = 0.0  # its variance is zero
    x = images(8)
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {groups[0].name: [1, 2]})
    smaller = apply(model, plan)
    recalibrate(smaller, plan, dense_statistics(model, (x,)))
    assert all(torch.isfinite(tensor).all() for tensor in smaller.state_dict().values())
