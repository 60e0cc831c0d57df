from __future__ import annotations

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import make_workload
from nets import NETWORKS, TwoConvolutions, images, network, shaken
from secateur.compression.compensation import least_squares
from secateur.compression.compensation import readers as limits
from secateur.compression.compensation.gram import gather_grams, grams_of
from secateur.compression.compensation.least_squares import LeastSquares
from secateur.compression.compensation.readers import answers, columns, matrix, readers
from secateur.compression.compensation.sequential import dense_answers, refit_in_order
from secateur.compression.groups import find_groups
from secateur.compression.masks import zeros_in
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.tensor_files import TensorFile
from secateur.compression.transforms.channels import without
from secateur.errors import StateError, WorkloadError
from secateur.records import Candidate, Edit, Plan, Remove
from secateur.testing.transforms import random_scores

LAYERS = {
    "convolution": (nn.Conv2d(4, 6, 3), (5, 4, 12, 13)),
    "stride, padding, dilation": (nn.Conv2d(4, 6, (3, 2), 2, (2, 1), (1, 2)), (5, 4, 19, 20)),
    "groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (5, 4, 9, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), (5, 4, 9, 9)),
    "same padding": (nn.Conv2d(4, 6, (3, 5), padding="same", dilation=(1, 2)), (5, 4, 9, 10)),
    "circular padding": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (5, 4, 9, 9)),
    "reflection": (nn.Conv1d(4, 6, 5, padding=2, padding_mode="reflect"), (5, 4, 100)),
    "three dimensions": (nn.Conv3d(4, 6, 2, stride=(1, 2, 1)), (3, 4, 5, 6, 7)),
    "linear": (nn.Linear(7, 3), (20, 7)),
    "linear on tokens": (nn.Linear(7, 3, bias=False), (4, 100, 7)),
    "linear on a map": (nn.Linear(7, 3), (4, 5, 6, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_matrix_times_its_columns(name):
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = columns(layer, x), answers(layer, layer(x))
    if layer.bias is not None:
        found = torch.cat([found, torch.ones(*found.shape[:2], 1)], 2)
    said = (found @ matrix(layer).mT).transpose(0, 1).flatten(1)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-5)


def test_few_places_are_all_taken_and_many_are_drawn():
    layer = nn.Conv2d(4, 6, 1)
    assert columns(layer, torch.randn(3, 4, 8, 8)).shape == (1, 3 * 64, 4)
    assert columns(layer, torch.randn(3, 4, 30, 30)).shape == (1, 3 * limits.PLACES, 4)


def stream(x: torch.Tensor, batch: int) -> DataLoader:
    return DataLoader(TensorDataset(x, torch.zeros(len(x))), batch)


@pytest.mark.parametrize("name", NETWORKS)
def test_gram_matrices_streamed_in_float32_are_those_of_all_rows_in_float64(name):
    model, x = network(name), images(40)
    names, _ = readers(model, find_groups(model, (x,)).groups)
    grams = gather_grams(model, names, stream(x, 8))
    reads = {}
    hooks = [
        model.get_submodule(n).register_forward_pre_hook(
            lambda layer, args, n=n: reads.update({n: columns(layer, args[0])})
        )
        for n in names
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    assert grams.keys() == reads.keys()
    for n, rows in reads.items():
        exact = torch.cat([rows.double(), torch.ones(*rows.shape[:2], 1, dtype=torch.float64)], 2)
        exact = exact.mT @ exact / exact.shape[1]
        torch.testing.assert_close(grams[n].double(), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()), msg=n)


def test_what_is_not_finite_is_said_with_the_layer():
    model, x = network("VGG"), images(8)
    x[3] = float("inf")
    with pytest.raises(WorkloadError, match=r"What '2\.0' reads in the dense model on calibration data is not finite"):
        gather_grams(model, ["2.0"], stream(x, 4))


def test_a_file_gives_each_matrix_anew_and_none_of_other_layers(tmp_path):
    given = {"a": torch.eye(3)[None], "b": torch.ones(2, 4, 4)}
    grams = TensorFile.written(tmp_path / "grams.safetensors", given)
    assert dict(grams).keys() == given.keys()
    assert all(torch.equal(grams[name], gram) for name, gram in given.items())
    assert grams["a"] is not grams["a"]
    assert "c" not in grams
    assert grams.get("c") is None


def test_a_disk_that_does_not_take_them_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("secateur.compression.tensor_files.save_file", full)
    with pytest.raises(StateError, match=r"cannot be written: I/O error: No space left on device .* Free some space"):
        TensorFile.written(tmp_path / "grams.safetensors", {"a": torch.eye(3)[None]})


class Repeated(TwoConvolutions):
    """Channels 0 and 5 say the same, channel 3 says the same everywhere: a reader can do without two of them."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            for tensor in (self.one.weight, self.one.bias):
                tensor[5] = tensor[0]
            self.one.weight[3] = 0.0
            self.one.bias[3] = 2.0

    def forward(self, x):
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


def fitted(model: nn.Module, x: torch.Tensor) -> LeastSquares:
    names, _ = readers(model, find_groups(model, (x,)).groups)
    return LeastSquares(model, gather_grams(model, names, stream(x, 8)))


def test_what_other_channels_say_as_well_is_taken_from_them(monkeypatch):
    monkeypatch.setattr(least_squares, "RIDGE", 1e-5)
    torch.manual_seed(0)
    model, x = Repeated().eval(), images(32)
    model.two.padding = (0, 0)  # the border would tell a constant from a bias
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {"one": (0, 3)})
    smaller = apply(model, plan)
    solver, fresh = fitted(model, x), images(16, seed=5)
    with torch.no_grad():
        assert (smaller(fresh) - model(fresh)).abs().max() > 0.05
        solver.refit(smaller, plan)
        torch.testing.assert_close(smaller(fresh), model(fresh), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_is_worse_on_what_the_dense_network_reads(name):
    """And the ridge only goes where it is better for the sum of error and distance: the solution of a linear system, naively."""
    model, x = network(name), images(32)
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {g.name: g.removable[::2][: g.width - g.least] for g in groups})
    plain, refitted = apply(model, plan), apply(model, plan)
    solver = fitted(model, x)
    solver.refit(refitted, plan)
    moved = 0
    for n, gone in plan.removed["in"].items():
        before, after = plain.get_submodule(n), refitted.get_submodule(n)
        if n not in solver.grams or len(solver.grams[n]) > 1:
            continue
        dense = model.get_submodule(n)
        gram = solver.grams[n][0].double()
        weight = matrix(dense)[0].double()
        gram = gram[: weight.shape[1], : weight.shape[1]]
        size = dense.weight[0, 0].numel()
        stay = [c for c in range(weight.shape[1]) if c // size not in gone or c >= dense.weight[0].numel()]
        rows = [r for r in range(len(weight)) if r not in plan.removed["out"].get(n, ())]

        def error(layer, *, rows=rows, stay=stay, weight=weight, gram=gram):
            difference = weight[rows].clone()
            difference[:, stay] -= matrix(layer)[0].double()
            return float(((difference @ gram) * difference).sum())

        assert error(after) <= error(before) + 1e-9
        moved += error(after) < 0.98 * error(before)
        drawn = torch.diag(torch.tensor([float(c < dense.weight[0].numel()) for c in stay], dtype=torch.float64))
        ridge = least_squares.RIDGE * gram.diagonal()[[c for c in stay if c < dense.weight[0].numel()]].mean() * drawn
        naive = (weight[rows] @ gram[:, stay] + weight[rows][:, stay] @ ridge) @ torch.linalg.inv(
            gram[stay][:, stay] + ridge
        )
        torch.testing.assert_close(matrix(after)[0].double(), naive, rtol=1e-3, atol=1e-4)
    assert moved


def test_groups_of_a_convolution_are_problems_of_their_own():
    torch.manual_seed(0)
    dense, x = nn.Conv2d(6, 4, 3, groups=2), torch.randn(16, 6, 9, 9)
    model = nn.Sequential(dense)
    plan = Plan((Remove("0", "in", (1, 3)),))
    smaller = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    solver = LeastSquares(model, gather_grams(model, ["0"], stream(x, 16)))
    solver.refit(smaller, plan)
    with torch.no_grad():
        for g, gone in enumerate((1, 0)):  # channel 1 is the first group's second, channel 3 the second group's first
            alone = nn.Sequential(nn.Conv2d(3, 2, 3))
            alone[0].weight.copy_(dense.weight[2 * g : 2 * g + 2])
            alone[0].bias.copy_(dense.bias[2 * g : 2 * g + 2])
            part = nn.Sequential(nn.Conv2d(2, 2, 3))
            grams = gather_grams(alone, ["0"], stream(x[:, 3 * g : 3 * g + 3], 16))
            LeastSquares(alone, grams).refit(part, Plan((Remove("0", "in", (gone,)),)))
            torch.testing.assert_close(smaller[0].weight[2 * g : 2 * g + 2], part[0].weight, rtol=1e-4, atol=1e-5)


def test_what_is_solved_once_serves_all_candidates_with_the_same_inputs(monkeypatch):
    model, x = network("residual"), images(16)
    groups = {g.name: g for g in find_groups(model, (x,)).groups}
    asked = []
    monkeypatch.setattr(least_squares, "regressed", lambda *given: asked.append(1) or solve(*given))
    name, other = "layer1.0.conv1", "layer2.0.conv1"
    first = without(groups.values(), {name: (1, 4)})
    second = without(groups.values(), {name: (1, 4), other: (0, 2)})
    solver = fitted(model, x)
    solver.refit(apply(model, first), first)
    count = len(asked)
    again = apply(model, second)
    solver.refit(again, second)
    assert len(asked) == 2 * count == 2  # one reader each
    alone = apply(model, second)
    fitted(model, x).refit(alone, second)
    for key, tensor in alone.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


solve = least_squares.regressed


@pytest.mark.parametrize("outputs", [1, 2, 3, 9])
def test_outputs_are_solved_for_one_by_one_or_through_the_inputs_that_go_with_one_result(outputs):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 9)), torch.randn(64, 6)
    few, plan = nn.Sequential(nn.Linear(6, outputs)), Plan((Remove("0", "in", (1, 4)),))
    few[0].load_state_dict({name: tensor[:outputs] for name, tensor in model[0].state_dict().items()})
    solutions = []
    for dense in (model, few):
        smaller = apply(dense, plan)
        LeastSquares(dense, gather_grams(dense, ["0"], stream(x, 16))).refit(smaller, plan)
        solutions.append(torch.cat([smaller[0].weight, smaller[0].bias[:, None]], 1)[:outputs])
    torch.testing.assert_close(*solutions, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(solutions[0][:, :-1], model[0].weight[:outputs][:, [0, 2, 3, 5]], atol=1e-4)


def test_solutions_are_forgotten_where_they_are_many(monkeypatch):
    model, x = network("residual"), images(16)
    groups = find_groups(model, (x,)).groups
    solver = fitted(model, x)
    monkeypatch.setattr(least_squares, "MOST_REMEMBERED", 2000)
    for channel in range(4):
        plan = without(groups, {g.name: (channel,) for g in groups})
        solver.refit(apply(model, plan), plan)
        assert len(solver._solutions) == 1 or sum(s.numel() for s in solver._solutions.values()) <= 2000


def test_a_layer_whose_inputs_are_all_zero_keeps_its_weights():
    model, x = network("residual"), images(8)
    layer = model.layer1[0]
    with torch.no_grad():
        layer.bn1.weight.zero_()
        layer.bn1.bias.zero_()
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {"layer1.0.conv1": (1, 4)})
    plain, refitted = apply(model, plan), apply(model, plan)
    fitted(model, x).refit(refitted, plan)
    assert torch.equal(plain.layer1[0].conv2.weight, refitted.layer1[0].conv2.weight)


def test_layers_that_are_not_refitted_say_why(monkeypatch):
    model = network("U-Net")
    groups = find_groups(model, (images(),)).groups
    names, reasons = readers(model, groups)
    assert reasons == {"up": "a ConvTranspose2d is not refitted"}
    assert set(names) == {
        "down.0",
        "bottom.0",
        "merge.0",
        "head",
    }  # nothing is taken from what `down.0` reads, but its weights may go
    monkeypatch.setattr(limits, "MOST_COLUMNS", 100)
    assert readers(model, groups)[1]["merge.0"] == "144 inputs an output; at most 100 are refitted"
    monkeypatch.setattr(limits, "MOST_COLUMNS", 1000)
    monkeypatch.setattr(limits, "MOST_ENTRIES", 73**2 + 28**2 + 9**2)
    names, reasons = readers(model, groups)
    assert names == ("down.0", "bottom.0", "head")
    assert "merge.0" in reasons


def test_a_weight_that_two_layers_have_is_left_alone():
    class Tied(TwoConvolutions):
        def __init__(self):
            super().__init__()
            self.three = nn.Conv2d(8, 8, 3, padding=1)
            self.three.weight = self.two.weight

        def forward(self, x):
            x = torch.relu(self.one(x))
            return self.head((self.two(x) + self.three(x)).mean((2, 3)))

    model = Tied().eval()
    _, reasons = readers(model, find_groups(model, (images(),)).groups)
    assert reasons["two"] == reasons["three"] == "another layer has the same weight"


def test_grams_are_gathered_on_so_many_samples_of_calibration_data():
    model = network("residual")
    workload = make_workload(model)
    groups = find_groups(model, workload.example_inputs).groups
    few, many = grams_of(model, groups, workload, 32), grams_of(model, groups, workload, 64)
    assert few.keys() == many.keys() == set(readers(model, groups)[0])
    assert any(not torch.equal(few[name], many[name]) for name in few)
    assert all(torch.equal(gram[:, -1, -1], torch.ones(len(gram))) for gram in few.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_in_order_the_uncut_network_keeps_its_answers(name):
    model, x = network(name), images(32)
    names, _ = readers(model, find_groups(model, (x,)).groups)
    whole = without([], {})
    same = apply(model, whole)
    outputs = refit_in_order(same, model, whole, dense_answers(model, names, (x,)))
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(same(x), outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_in_order_is_layer_after_layer(name):
    """Naively: for each layer another pass, which finds the layers before it refitted."""
    model, x = network(name), images(16)
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {g.name: g.removable[::3] for g in groups})
    names, _ = readers(model, groups)
    dense = dense_answers(model, names, (x,))
    fast, slow = apply(model, plan), apply(model, plan)
    refit_in_order(fast, model, plan, dense)
    for n in called(slow, names, x):
        refit_in_order(slow, model, plan, type(dense)((x,), {n: dense.outputs[n]}))
    for key, tensor in slow.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def called(model: nn.Module, names, x) -> list[str]:
    order: list[str] = []
    hooks = [model.get_submodule(n).register_forward_hook(lambda *_, n=n: order.append(n)) for n in names]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return order


def test_in_order_is_nearer_to_the_dense_network_than_layer_by_layer():
    model, x = shaken(network("VGG"), 3), images(64)
    groups = find_groups(model, (x,)).groups
    plan = without(groups, {g.name: g.removable[::2] for g in groups})
    names, _ = readers(model, groups)
    plain, refitted, ordered = (apply(model, plan) for _ in range(3))
    fitted(model, x).refit(refitted, plan)
    refit_in_order(ordered, model, plan, dense_answers(model, names, (x,)))
    with torch.no_grad():
        errors = [float((module(x) - model(x)).square().mean()) for module in (plain, refitted, ordered)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("also_channels", [False, True])
def test_masked_layers_are_made_up_for_in_what_they_still_read(also_channels):
    """Nearer to the dense outputs than zeros alone, and the zeros hold."""
    model = network("residual")
    found = find_groups(model, (images(),))
    groups = [*found.groups, *found.fixed]
    generator = torch.Generator().manual_seed(0)
    scores = {group.name: random_scores(group, generator) for group in groups}
    edits = {group.name: (Edit("weights", 500, "random"),) for group in groups[1:]}
    if also_channels:
        edits[groups[0].name] = (Edit("channels", groups[0].width - 2, "random"),)
    plan = resolve(Candidate(edits), groups, scores)
    x, plain, refitted = images(64), apply(model, plan), apply(model, plan)
    grams = gather_grams(model, readers(model, groups)[0], [((x,), None)])
    LeastSquares(model, grams).refit(refitted, plan)
    assert all(bool((weight[zeros] == 0).all()) for (weight, _), (_, zeros) in zip(
        zeros_in(refitted, plan.masked), zeros_in(plain, plan.masked), strict=True
    ))  # fmt: skip
    with torch.no_grad():
        dense = model(x)
        assert (refitted(x) - dense).square().sum() < 0.7 * (plain(x) - dense).square().sum()
