from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import make_workload
from secateur.compression.groups import find_groups
from secateur.compression.masks import by_row
from secateur.definition import RecoverDefinition
from secateur.records import Edit, Group, Weights
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.masks import RAMP, UPDATES, LearnedMasks, learned

EDITS = {"weights": 300, "n_m": "2:4", "blocks": "2x2@250"}


@pytest.fixture(scope="module")
def teacher():
    return make_workload().build_model()


@pytest.fixture(scope="module")
def groups(teacher):
    found = find_groups(teacher, make_workload(teacher).example_inputs)
    return [group for group in (*found.groups, *found.fixed) if group.weights]


def edited(groups, kind="weights"):
    return [(group, Edit(kind, EDITS[kind], "magnitude")) for group in groups]


def zero_share(model, groups):
    layers = [model.get_submodule(own.layer).weight for group in groups for own in group.weights]
    return sum(int((w == 0).sum()) for w in layers) / sum(w.numel() for w in layers)


class Line(nn.Module):
    """Four weights of one row."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))

    def forward(self, x):
        return self.layer(x)


def line_masks(by):
    model = Line()
    group = Group("layer", "Linear", (), 1, (), 4, 4, weights=(Weights("layer", (0,), 4, 1),))
    return model, LearnedMasks([(group, Edit("weights", 500, "magnitude"))], by, model)


def test_the_share_of_zeros_rises_by_a_cubic_schedule_and_then_stays():
    model, masks = line_masks("gradual")
    shares = []
    for step in range(UPDATES + 1):
        masks.before(RAMP * step / UPDATES)
        shares.append(float((model.layer.weight == 0).float().mean()))
    expected = [round(4 * 0.5 * (1 - (1 - step / UPDATES) ** 3)) / 4 for step in range(UPDATES + 1)]
    assert shares == pytest.approx(expected)
    masks.before(0.99)
    assert shares[-1] == 0.5 == float((model.layer.weight == 0).float().mean())


def test_gradual_takes_the_smallest_and_a_weight_that_comes_back_has_its_old_value():
    model, masks = line_masks("gradual")
    weight = model.layer.weight
    masks.before(RAMP * 0.5)
    assert weight.tolist() == [pytest.approx([0.0, 0.0, 0.3, 0.4])]
    with torch.no_grad():
        weight[0, 2] = 0.01
    masks.before(RAMP)
    assert weight.tolist() == [pytest.approx([0.0, 0.2, 0.0, 0.4])]


def test_movement_keeps_what_steps_move_away_from_zero():
    """S = -Σ gradient · weight, with the value that a weight had where it is zero now."""
    model, masks = line_masks("movement")
    weight = model.layer.weight
    masks.before(0.0)
    weight.grad = torch.tensor([[-1.0, 1.0, -1.0, 1.0]])
    masks.graded()
    assert masks.state()["scores.layer"].tolist() == [pytest.approx([0.1, -0.2, 0.3, -0.4])]
    masks.before(RAMP)
    assert weight.tolist() == [pytest.approx([0.1, 0.0, 0.3, 0.0])]
    weight.grad = torch.tensor([[0.0, -2.0, 0.0, 0.0]])
    masks.graded()
    assert masks.state()["scores.layer"].tolist() == [pytest.approx([0.1, 0.2, 0.3, -0.4])]
    assert weight.grad.tolist() == [[0.0, 0.0, 0.0, 0.0]], "no momentum gathers"


@pytest.mark.parametrize("by", ["gradual", "movement"])
@pytest.mark.parametrize("kind", [*EDITS])
def test_training_ends_with_the_zeros_that_edits_ask_for(teacher, groups, kind, by):
    """With AdamW and averaged weights too: masks that were others before leave nothing in the average."""
    workload = make_workload(teacher)
    plain = {"learning_rate": 0.01} if by == "movement" else {"optimizer": "adamw", "weight_decay": 0.1, "ema": 0.9}
    settings = RecoverDefinition(epochs=2, batch=64, **plain)
    tuned = fine_tune(teacher, teacher, workload, settings, Training(masks=learned(edited(groups, kind), by)))
    assert tuned.stopped is None
    for group, edit in edited(groups, kind):
        if min(own.inputs for own in group.weights) >= 4:
            assert zero_share(tuned.module, [group]) == pytest.approx(1 - edit.kept(group.width), abs=0.06)
        for own in group.weights if kind == "n_m" else ():
            weight = by_row(layer := tuned.module.get_submodule(own.layer), layer.weight)
            fours = weight[:, : own.inputs // 4 * 4].unflatten(1, (-1, 4)) != 0
            assert (fours.sum(2) <= 2).all()


def test_a_training_that_is_killed_goes_on_bit_by_bit(teacher, groups, tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch, _loss):
        if epoch == 1:
            raise Killed

    workload, settings = make_workload(teacher), RecoverDefinition(epochs=3, batch=64, learning_rate=0.01)
    masks, file = learned(edited(groups), "movement"), tmp_path / "checkpoint.safetensors"
    whole = fine_tune(teacher, teacher, workload, settings, Training(masks=masks)).module
    with pytest.raises(Killed):
        fine_tune(teacher, teacher, workload, settings, Training(checkpoint=file, on_epoch=kill, masks=masks))
    again = fine_tune(teacher, teacher, workload, settings, Training(checkpoint=file, masks=masks)).module
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in whole.state_dict().items())


def test_a_training_that_fails_ends_with_the_zeros_all_the_same(teacher, groups):
    workload, settings = make_workload(teacher), RecoverDefinition(epochs=2, batch=64, learning_rate=1000.0)
    tuned = fine_tune(teacher, teacher, workload, settings, Training(masks=learned(edited(groups), "gradual")))
    assert "the weights from before it stand" in tuned.stopped
    assert zero_share(tuned.module, groups) == pytest.approx(0.7, abs=0.01)
