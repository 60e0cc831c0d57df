"""A training of the user's own: what it is given, what must hold of what it gives back, what is kept of it."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from conftest import make_workload
from secateur.compression.gates import gated, gated_blocks
from secateur.definition import RecoverDefinition
from secateur.errors import DefinitionError, EvaluationFailed, WorkloadError
from secateur.recovery.fine_tune import Training
from secateur.recovery.trainers import Trainer, source_digest, train_with, trainer_of
from secateur.workloads.live import held_trainer
from secateur.workloads.samples import in_batches

SETTINGS = RecoverDefinition(epochs=3, distill=None)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act, self.head = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture
def student(teacher):
    """Half of the weights of its convolution are zero."""
    cut = Net().eval()
    with torch.no_grad():
        cut.conv.weight.masked_fill_(
            torch.rand(cut.conv.weight.shape, generator=torch.Generator().manual_seed(2)) < 0.5, 0.0
        )
    return cut


@pytest.fixture
def trained(student, teacher, tmp_path):
    """Calls a trainer of the student."""

    def call(function, settings=SETTINGS, **training):
        checkpoint = tmp_path / "checkpoint.safetensors"
        made = Training(checkpoint=checkpoint, **training)
        trainer = Trainer("my_training.py:train", function)
        return train_with(trainer, student, teacher, make_workload(teacher), settings, made, ("conv",))

    return call


def step(model, optimizer):
    optimizer.zero_grad()
    model.train()(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()


OPTIMIZERS = {
    "AdamW": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5),
    "momentum": partial(torch.optim.SGD, lr=0.001, momentum=0.9),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.001),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zeros_stay_whatever_the_optimizer_does_and_what_it_gets_is_left_alone(trained, student, optimizer):
    seen = []

    def train(model, *_):
        seen.append(model)
        made = OPTIMIZERS[optimizer](model.parameters())
        for _ in range(2):
            step(model, made)
            assert not model.conv.weight[student.conv.weight == 0].any()
        assert not model.conv.weight.grad[student.conv.weight == 0].any()
        return model

    before = student.conv.weight.detach().clone()
    tuned = trained(train)
    assert torch.equal(tuned.module.conv.weight == 0, before == 0)
    assert not torch.equal(tuned.module.conv.weight, before)
    assert torch.equal(student.conv.weight, before)
    assert not tuned.module.training
    step(seen[0], OPTIMIZERS[optimizer](seen[0].parameters()))
    assert seen[0].conv.weight[before == 0].any(), "after the training, optimizers are nobody's business"


def widened(model):
    model.head = nn.Linear(7, 5)
    return model


def renamed(model):
    model.tail = model.head
    del model.head
    return model


def smoothed(model):
    model.act = nn.GELU()
    return model


@torch.no_grad()
def revived(model):
    model.conv.weight.add_(1.0)
    return model


@torch.no_grad()
def burst(model):
    model.head.bias[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (widened, "changed the structure of the network: the tensor 'head.weight' was (5, 6) and is (5, 7)"),
        (renamed, "the layer 'head' was a Linear and is not there, and so are 1 others"),
        (smoothed, "the layer 'act' was a ReLU and is a GELU"),
        (revived, "weights of 'conv' back that are to stay zero"),
        (burst, "returned weights that are not finite: 'head.bias' holds NaN"),
        (lambda _: None, "returned a NoneType; it must return the module"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_is_named(trained, does, says):
    with pytest.raises(EvaluationFailed) as failure:
        trained(lambda model, *_: does(model))
    assert str(failure.value).startswith("The trainer my_training.py:train ")
    assert says in str(failure.value)


def test_what_a_trainer_raises_is_one_line(trained):
    def train(*_):
        raise ValueError("no\nmore")

    with pytest.raises(
        WorkloadError, match=r"^The trainer my_training.py:train raised ValueError: no \(at .*test_trainers.py:\d+\)$"
    ):
        trained(train)


class Killed(BaseException):
    pass


def test_a_restarted_training_has_weights_progress_and_its_files(trained, student, tmp_path):
    told, folders = [], []

    def train(model, _teacher, _data, budget, save):
        folders.append(budget.folder)
        if budget.progress is None:
            (budget.folder / "mine").write_text("kept")
            optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
            step(model, optimizer)
            save(model, {"epoch": 1, "loss": 0.5, "optimizer": optimizer.state_dict()})
            step(model, optimizer)
            raise Killed
        assert (budget.folder / "mine").read_text() == "kept"
        assert budget.progress["optimizer"]["param_groups"][0]["lr"] == 0.1
        assert not torch.equal(model.conv.weight, student.conv.weight)
        save(model, {"epoch": 2, "loss": 0.25})
        return model

    on_epoch = lambda *given: told.append(given)  # noqa: E731
    with pytest.raises(Killed):
        trained(train, on_epoch=on_epoch)
    tuned = trained(train, on_epoch=on_epoch)
    assert told == [(1, 0.5), (2, 0.25)]
    assert (tuned.epochs, tuned.losses) == (2, (0.5, 0.25))
    assert folders[0].exists(), "until the finalist is on disk"


def test_a_progress_that_cannot_be_kept_is_refused(trained):
    def train(model, _teacher, _data, _budget, save):
        save(model, {"optimizer": torch.optim.Adam(model.parameters())})

    with pytest.raises(WorkloadError, match="it may hold numbers, text and tensors, in lists and dicts"):
        trained(train)


def test_minutes_are_what_is_left_of_them(trained):
    ticks, left = itertools.count(step=30), []

    def train(model, _teacher, _data, budget, save):
        left.append(budget.minutes)
        save(model, None)
        if len(left) == 1:
            raise Killed
        return model

    settings = RecoverDefinition(minutes=2.0, distill=None)
    with pytest.raises(Killed):
        trained(train, settings, clock=lambda: float(next(ticks)))
    assert trained(train, settings, clock=lambda: float(next(ticks))).seconds == 90.0
    assert left == [2.0, 1.5]


def test_the_objective_is_that_of_the_built_in_trainer(trained, teacher):
    """With distillation; inputs come as the model takes them."""

    def train(model, taught, data, _budget, _save):
        assert not any(p.requires_grad for p in taught.parameters())
        samples = [data.train[i] for i in range(4)]
        inputs, targets = data.collate(samples)
        outputs = model(inputs)
        soft = nn.functional.kl_div(
            (outputs / 4).log_softmax(1), (taught(inputs) / 4).softmax(1), reduction="batchmean"
        )
        expected = 0.9 * 16 * soft + 0.1 * data.loss(outputs, targets)
        torch.testing.assert_close(data.objective(inputs, outputs, targets), expected)
        return model

    trained(train, RecoverDefinition())


def test_gates_are_in_the_objective_and_stay(tmp_path):
    workload = make_workload()
    model = workload.build_model()
    student = gated(model, {"layer1.0": 8, "layer2.1": 16})

    def train(module, _teacher, data, _budget, _save):
        inputs, targets = next(iter(in_batches(data.train, 8)))
        optimizer = torch.optim.AdamW(module.train().parameters(), lr=0.01)
        data.objective(inputs, module(inputs), targets).backward()
        assert all(any(p.grad is not None for p in block.parameters()) for block in gated_blocks(module).values())
        optimizer.step()
        return module

    settings = RecoverDefinition(gates={"budget": 0.5}, distill=None)
    trainer, training = Trainer("t", train), Training(checkpoint=tmp_path / "checkpoint.safetensors")
    tuned = train_with(trainer, student, model, workload, settings, training)
    assert [*gated_blocks(tuned.module)] == [*gated_blocks(student)]


def fine(model, teacher, data, budget, save):
    return model


def test_a_trainer_is_found_by_file_module_or_held_function(tmp_path):
    (tmp_path / "mine.py").write_text("def train(model, teacher, data, budget, save):\n    return model\n")
    first = trainer_of(RecoverDefinition(trainer="mine.py:train"), tmp_path)
    assert first.function(1, 2, 3, 4, 5) == 1
    with held_trainer(fine) as name:
        assert trainer_of(RecoverDefinition(trainer=name), tmp_path).function is fine
    with pytest.raises(WorkloadError, match="its trainer is in no file"):
        trainer_of(RecoverDefinition(trainer=name), tmp_path)
    assert trainer_of(RecoverDefinition(), tmp_path) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no 'train'"),
        ("train = 3", "is a int, not a function"),
        ("def train(model, data): ...", "is called as train(model, teacher, data, budget, save): too many positional"),
        ("import nothing_at_all", "No module named 'nothing_at_all'"),
    ],
)
def test_a_trainer_that_cannot_be_called_is_refused_before_long_work(tmp_path, text, says):
    (tmp_path / "wrong.py").write_text(text)
    with pytest.raises((DefinitionError, WorkloadError)) as error:
        trainer_of(RecoverDefinition(trainer="wrong.py:train"), tmp_path)
    assert says in str(error.value)


def test_the_digest_follows_the_text_and_what_a_partial_sets(tmp_path):
    file = tmp_path / "mine.py"
    digests = []
    for text in ("def train(model, teacher, data, budget, save, rate=1):\n    return model\n", "", "# a comment"):
        file.write_text(file.read_text() + text if file.exists() else text)
        scope: dict[str, object] = {}
        exec(compile(file.read_text(), str(file), "exec"), scope)
        digests.append(source_digest(scope["train"]))
    assert digests[0] == digests[1] != digests[2]
    assert len({source_digest(partial(fine, rate=1)), source_digest(partial(fine, rate=2)), source_digest(fine)}) == 3


def test_what_a_partial_holds_is_told_apart_alike_in_every_process():
    """A function's or an object's repr holds its address."""

    class Thing:
        pass

    first, second = (source_digest(partial(fine, schedule=lambda x: x, thing=Thing())) for _ in range(2))
    assert first == second
    assert first != source_digest(
        partial(fine, schedule=test_masks_that_training_chooses_go_with_the_built_in_trainer, other=1)
    )


def test_masks_that_training_chooses_go_with_the_built_in_trainer():
    with pytest.raises(ValueError, match="leave one of 'masks' and 'trainer' out"):
        RecoverDefinition(trainer="a:b", masks="gradual")
