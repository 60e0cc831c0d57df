"""What a user sets of the training: optimizer, average, accumulation, clipping, precision, length, checkpoints, workers."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.data import Subset

from conftest import make_workload
from nets import network
from secateur.compression.gates import gated, gated_blocks
from secateur.definition import RecoverDefinition
from secateur.errors import WorkloadError
from secateur.recovery.average import Average
from secateur.recovery.batches import Batches, read
from secateur.recovery.fine_tune import Training, fine_tune, train_steps
from secateur.recovery.loop import _take, learner_for, length_of
from secateur.recovery.masks import KeptMasks, kept

EVERYTHING = {
    "optimizer": "adamw",
    "ema": 0.9,
    "accumulate": 2,
    "clip": 1.0,
    "warmup": 0.2,
    "epochs": 2,
    "batch": 16,
    "checkpoint_minutes": 0.0,
}
PLAIN = {"epochs": 2, "batch": 32, "checkpoint_minutes": 0.0}


class Plainest(nn.Module):
    """No batch norms, and dropout only where it is asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv, self.head, self.drop = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, 5), nn.Dropout(dropout)

    def forward(self, x):
        return self.head(self.drop(self.conv(x).relu()).mean((2, 3)))


class Noisy:
    """Samples that are augmented on access, by each of the global generators."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        x, y = self.samples[i]
        noise = np.random.rand() + random.random() + torch.rand(()).item()  # noqa: NPY002 # as people do
        return x * np.float32(1 + 0.1 * noise), y


def workload_for(model, samples=128, *, noisy=True):
    made = make_workload(model)
    few = Subset(made.data.train, range(samples))
    return dataclasses.replace(made, data=dataclasses.replace(made.data, train=Noisy(few) if noisy else few))


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    return Plainest(dropout=0.2).eval()


def tuned(teacher, workload, changed, **training):
    return fine_tune(teacher, teacher, workload, RecoverDefinition(**changed), Training(**training))


def equal(one, other):
    return all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items())


class Killed(BaseException):
    """Not an error of the user's code."""


@pytest.mark.parametrize("settings", [PLAIN, EVERYTHING, {**EVERYTHING, "precision": "bf16"}])
def test_killed_twice_between_any_two_steps_it_ends_with_the_very_same_weights(teacher, tmp_path, settings):
    workload, calls = workload_for(teacher), itertools.count(1)

    def deadly(outputs, targets):
        if next(calls) in (3, 7):
            raise Killed
        return workload.loss(outputs, targets)

    whole = tuned(teacher, workload, settings)
    file, dying = tmp_path / "checkpoint.safetensors", dataclasses.replace(workload, loss=deadly)
    for _ in range(2):
        with pytest.raises(Killed):
            tuned(teacher, dying, settings, checkpoint=file)
    again = tuned(teacher, dying, settings, checkpoint=file)
    assert equal(whole.module, again.module)
    assert whole.losses == again.losses
    parts = settings.get("accumulate", 1)
    assert next(calls) - 1 <= parts * (2 * 4 + 2), "two steps of eight are done again"


def test_what_stands_after_a_failure_is_the_same_after_a_restart(teacher, tmp_path):
    """The weights from before the epoch are in the file as well."""
    workload = workload_for(teacher)
    ends = []
    for kill in (False, True):
        calls, file = itertools.count(1), tmp_path / f"{kill}.safetensors"

        def failing(outputs, targets, calls=calls, kill=kill):
            number = next(calls)
            if kill and number == 7:
                raise Killed
            return workload.loss(outputs, targets) * (float("nan") if number == 7 + kill else 1.0)

        failing_workload = dataclasses.replace(workload, loss=failing)
        if kill:
            with pytest.raises(Killed):
                tuned(teacher, failing_workload, PLAIN, checkpoint=file)
        ends.append(tuned(teacher, failing_workload, PLAIN, checkpoint=file))
    assert ends[0].stopped == ends[1].stopped
    assert ends[0].stopped.startswith("the loss became nan in epoch 2, step 3")
    assert equal(ends[0].module, ends[1].module)


def test_a_file_of_another_format_is_no_beginning(teacher, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "checkpoint.safetensors"
    save_file({"model.x": torch.zeros(1)}, file, metadata={"progress": "{}"})
    workload = workload_for(teacher)
    assert equal(tuned(teacher, workload, PLAIN, checkpoint=file).module, tuned(teacher, workload, PLAIN).module)


def test_states_are_kept_as_often_as_asked_for(teacher, tmp_path, monkeypatch):
    """Within epochs too, but not after each of the 16 steps."""
    written: list[int] = []
    monkeypatch.setattr("secateur.recovery.checkpoint.write", lambda _file, _content: written.append(1))
    settings = {
        **PLAIN,
        "batch": 8,
        "checkpoint_minutes": 0.2,
    }  # twelve seconds, six steps: two looks at the clock for each
    tuned(teacher, workload_for(teacher), settings, checkpoint=tmp_path / "x", clock=seconds())
    assert 2 + 2 <= len(written) <= 2 + 2 * 3


class Watched(KeptMasks):
    """Sees the weights after each step."""

    def __init__(self, student):
        super().__init__((), student)
        self.student, self.seen = student, []

    def stepped(self):
        super().stepped()
        self.seen.append([p.detach().clone() for p in self.student.parameters()])


def test_the_average_of_the_weights_is_what_is_kept(teacher):
    watched = []

    def masks(student):
        watched.append(Watched(student))
        return watched[0]

    settings = {**PLAIN, "ema": 0.5}
    kept_module = tuned(teacher, workload_for(teacher), settings, masks=masks).module
    expected = [p.detach().clone() for p in teacher.parameters()]
    for n, weights in enumerate(watched[0].seen[:8], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights, strict=True)]
    for own, by_hand in zip(kept_module.parameters(), expected, strict=True):
        torch.testing.assert_close(own, by_hand)


def test_batches_that_make_one_step_are_as_good_as_one_batch(teacher):
    workload = workload_for(Plainest().eval(), noisy=False)
    model = workload.build_model()
    one = tuned(model, workload, {"epochs": 1, "batch": 32, "distill": None})
    parts = tuned(model, workload, {"epochs": 1, "batch": 8, "accumulate": 4, "distill": None})
    for whole, summed in zip(one.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(whole, summed)
    assert one.losses == pytest.approx(parts.losses)
    assert length_of(workload, RecoverDefinition(batch=100, accumulate=9)).parts == 1, "no more than there are samples"


def test_gradients_are_scaled_to_a_norm_in_which_zeros_do_not_count():
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0, 1.0]]))
    learner = learner_for(model, RecoverDefinition(learning_rate=1.0, weight_decay=0.0), "cpu", kept(("",)))
    model.weight.grad = torch.tensor([[100.0, 3.0, 4.0]])
    _take(learner, 2.5)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.0, 1.5, 2.0]]))
    assert model.weight[0, 0] == 0


@pytest.mark.parametrize("changed", [{"optimizer": "adamw", "weight_decay": 0.5}, {"ema": 0.9}, EVERYTHING])
def test_zeros_stay_whatever_the_optimizer_does(teacher, changed):
    student = Plainest()
    weight = student.conv.weight
    zeros = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    with torch.no_grad():
        weight.masked_fill_(zeros, 0.0)
    settings = RecoverDefinition(**{"epochs": 1, "batch": 32, **changed})
    module = fine_tune(student, teacher, workload_for(teacher), settings, Training(masks=kept(("conv",)))).module
    assert torch.equal(module.conv.weight == 0, zeros)
    assert not torch.equal(module.conv.weight, weight)


def test_gates_are_learnt_by_any_optimizer():
    model = network("residual")
    workload = workload_for(model)
    student = gated(network("residual"), {"layer1.0": 8, "layer2.1": 16})
    settings = RecoverDefinition(epochs=1, batch=32, optimizer="adamw", ema=0.9, gates={"budget": 0.6})
    module = fine_tune(student, model, workload, settings).module
    assert [*gated_blocks(module)] == [*gated_blocks(student)]
    assert module.state_dict().keys() == student.state_dict().keys()


def test_a_training_of_steps_may_end_within_a_pass(teacher):
    told = []
    end = tuned(
        teacher, workload_for(teacher), {"training_steps": 6, "batch": 32}, on_epoch=lambda e, _: told.append(e)
    )  # 4 steps a pass
    assert (told, end.epochs, len(end.losses)) == ([1, 2], 2, 2)


def seconds():
    """A clock on which a second passes each time that somebody looks."""
    ticks = itertools.count()
    return lambda: float(next(ticks))


def test_minutes_are_those_of_all_attempts_and_the_schedule_follows_them(teacher, tmp_path, monkeypatch):
    workload, rates, calls = workload_for(teacher), [], itertools.count(1)
    schedule = "secateur.recovery.loop._schedule"
    monkeypatch.setattr(schedule, lambda _optimizer, _settings, done: rates.append(done))
    settings = {"minutes": 0.25, "batch": 32, "checkpoint_minutes": 0.0}  # 15 seconds

    def deadly(outputs, targets):
        if next(calls) == 6:
            raise Killed
        return workload.loss(outputs, targets)

    dying, file = dataclasses.replace(workload, loss=deadly), tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        tuned(teacher, dying, settings, checkpoint=file, clock=seconds())
    before = rates.pop()  # of the step that was lost
    end = tuned(teacher, dying, settings, checkpoint=file, clock=seconds())
    assert rates == sorted(rates)
    assert rates[5] == before, "the clock of the second attempt goes on where that of the first one was"
    assert 0.75 < rates[-1] < 1.0
    assert 15 <= end.seconds < 19


def test_one_step_is_taken_in_however_little_time(teacher):
    end = tuned(teacher, workload_for(teacher), {"minutes": 1e-6, "batch": 32}, clock=seconds())
    assert (end.epochs, len(end.losses)) == (1, 1)


def test_the_weights_do_not_depend_on_who_reads_the_samples(teacher):
    workload = workload_for(teacher)
    alone, helped = (tuned(teacher, workload, {**PLAIN, "workers": n}) for n in (0, 2))
    assert equal(alone.module, helped.module)
    assert alone.losses == helped.losses


def test_a_compiled_network_is_trained_in_its_own_weights(teacher, monkeypatch):
    """A compiled module holds the model; the code that is made of it would take minutes to build."""
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model: calls.append(model) or nn.Sequential(model))
    workload = workload_for(teacher)
    eager, compiled = (tuned(teacher, workload, {**PLAIN, "compile": c}) for c in (False, True))
    assert len(calls) == 2, "the network and its teacher"
    assert equal(eager.module, compiled.module)
    assert compiled.module.state_dict().keys() == teacher.state_dict().keys()
    train_steps(teacher, teacher, workload, RecoverDefinition(**{**PLAIN, "compile": True}), 1)
    assert len(calls) == 2, "a few steps are not worth it"


@pytest.mark.parametrize(
    "other", [{"gates": {"budget": 0.5}}, {"distill": {"hints": ["a"]}}, {"distill": {"attention": ["a"]}}]
)
def test_what_a_compiled_network_does_not_show_is_refused(other):
    with pytest.raises(ValidationError, match="'compile' sees neither gates nor inner layers"):
        RecoverDefinition(compile=True, **other)


class Broken(Noisy):
    def __getitem__(self, i):
        raise WorkloadError(f"The data role 'train': sample {i} raised OSError: gone")


def test_what_a_reader_fails_of_is_one_line(teacher):
    batches = Batches(Broken(range(8)), 2, 4, seed=0)
    with pytest.raises(WorkloadError, match=r"^The data role 'train': sample \d raised OSError: gone$"):
        next(read(batches, 0, 1, pinned=False))


def test_each_pass_has_an_order_of_its_own_and_every_sample_once():
    batches = Batches([(torch.tensor(i), torch.tensor(0)) for i in range(12)], 3, 4, seed=5)
    passes = [torch.cat([batches[n][0] for n in range(4 * one, 4 * one + 4)]).tolist() for one in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    later = read(batches, 6, 0, pinned=False)
    assert torch.equal(next(later)[0], batches[6][0])


def test_an_average_goes_on_where_it_was():
    model = nn.Linear(2, 2)
    one, other = Average(model, 0.9), Average(model, 0.9)
    for step in range(3):
        with torch.no_grad():
            model.weight.add_(1.0)
        one.stepped()
        if step == 0:
            other.restore({name: t.clone() for name, t in one.tensors.items()}, 1)
        else:
            other.stepped()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
