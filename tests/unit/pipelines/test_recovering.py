"""Finalists, with an evaluator that exports and measures nothing: what is done once, kept, and told."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from functools import partial
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import make_workload
from nets import network
from secateur.compression.costs import nonzero_after
from secateur.compression.gates import OPEN, SPREAD, gated_blocks
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.storage import stored, weights_digest
from secateur.definition import LocalDevice, RecoverDefinition, SearchSpaceDefinition
from secateur.errors import DataUnreadable, DeviceLost, EvaluationFailed, WorkloadError
from secateur.evaluators import Network
from secateur.evaluators.sample_scores import Scores
from secateur.execution import Trained
from secateur.gating.placing import with_gates
from secateur.pipelines import tuning
from secateur.pipelines.finalists import finalist_of, renewed, small_dense_of
from secateur.pipelines.recovering import Recovery
from secateur.pipelines.state import RunFolder, Stopwatch
from secateur.records import Candidate, CompressedModel, Edit, Evaluation, Measurement, Plan, Trial
from secateur.recovery.trainers import Trainer
from secateur.search_spaces import build_space

SCORES = Scores(2, per_sample=True, values=np.array([0.0, 1.0]))
SETTINGS = RecoverDefinition(epochs=2, batch=64, learning_rate=0.02)


class Killed(Exception):
    pass


class Evaluator:
    """Counts what it is asked for; `fails` raises at the first call of that name."""

    everything = ("accuracy", "size")
    runtime = SimpleNamespace(format="onnx")

    def __init__(self, model):
        self.model, self.files, self.calls, self.fails = model, self, [], {}
        self.waiting, self.answers = SimpleNamespace(spent=100.0), []

    def _called(self, name):
        self.calls.append(name)
        if name in self.fails:
            raise self.fails.pop(name)

    def compress(self, candidate, plan):
        return CompressedModel(candidate, plan, apply(self.model, plan))

    def refined(self, _plan):
        return "refined"

    def exported(self, module, macs):
        self._called("export")
        return Network(module, weights_digest(module).encode(), macs)

    def measure(self, network, role, names):
        self._called(role)
        self.waiting.spent += 0.25
        assert network.onnx == weights_digest(network.module).encode(), "the file of this very module"
        return {name: Measurement(0.5, "", "measured") for name in names}

    def ask(self, _network, role, _names):
        self._called(f"{role} on the device")
        return "answer"

    def score(self, network, role, names, answer):
        self.answers.append(answer)
        return SimpleNamespace(measurements=self.measure(network, role, names), scores=SCORES)


@pytest.fixture(scope="module")
def space(workload):
    return build_space(
        SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l2", "weights/magnitude"]}]}),
        find_groups(workload.build_model(), workload.example_inputs),
    )


@pytest.fixture
def case(tmp_path, space):
    workload = make_workload(samples=300)
    model = workload.build_model()
    definition = SimpleNamespace(
        recover=SETTINGS,
        search=SimpleNamespace(seed=3),
        evaluator=SimpleNamespace(device=LocalDevice(), device_samples=0, refit_images=0, calibration_images=32),
        workload=SimpleNamespace(as_written={"factory": "made:made"}),
    )
    costs = SimpleNamespace(after=lambda _: 1000)
    prepared = SimpleNamespace(
        model=model,
        workload=workload,
        space=space,
        definition=definition,
        costs=costs,
        evaluator=Evaluator(model),
        trainer=None,
    )
    run = RunFolder(tmp_path, "r", "p", "d", str(tmp_path), "now", "w", {})
    scores = {g.name: {"l2": torch.arange(g.width).float()} for g in space.groups}
    recovery = Recovery(prepared, run, "cpu", Stopwatch(tmp_path / "seconds.json"))
    halved = Candidate({g: e for g, e in space.uniform(0.5, "l2").edits.items() if e[0].transform == "channels"})
    trial = Trial(7, "sampler", "", Evaluation(halved, "abcdef123", {}), None)
    return SimpleNamespace(
        recovery=recovery, evaluator=prepared.evaluator, finalist=finalist_of(prepared, scores, trial, 1), scores=scores
    )


def silent(_epoch, _loss):
    pass


def tuned(case, on_epoch=silent, finalist=None):
    (found,) = case.recovery.recovered([finalist or case.finalist], lambda _: on_epoch)
    return found


def test_a_finalist_is_exported_once_and_its_parts_are_timed(case):
    found = tuned(case)
    assert (found.name, found.trial, found.epochs, found.failure) == ("f1-abcdef", 7, 2, None)
    assert case.evaluator.calls == ["export", "selection", "search"]
    parts = {"recover.refitting", "recover.training", "recover.export", "recover.measuring", "recover.waiting"}
    assert set(case.recovery.watch.seconds) == parts
    assert case.recovery.watch.spent("recover.waiting") == 0.5
    assert tuned(case) == found
    assert len(case.evaluator.calls) == 3


def test_training_starts_from_the_network_of_the_search_and_one_that_is_not_trained_is_refined(case):
    prepared, found = case.recovery.prepared, case.finalist
    trial = Trial(7, "sampler", "", Evaluation(found.candidate, "abcdef123", {}), None)
    plan = resolve(found.candidate, prepared.space.groups, case.scores)
    assert weights_digest(found.begun(found.candidate).module) == weights_digest(apply(prepared.model, plan))
    prepared.definition.recover = None
    alone = finalist_of(prepared, case.scores, trial, 1)
    assert (alone.begun(alone.candidate).module, alone.settings) == ("refined", None)


@pytest.mark.parametrize("killed", ["export", "selection", "search"])
def test_a_crash_after_training_costs_neither_the_training_nor_the_export(case, killed):
    case.evaluator.fails[killed] = Killed()
    epochs = []
    with pytest.raises(Killed):
        tuned(case, lambda epoch, _: epochs.append(epoch))
    found = tuned(case, lambda epoch, _: epochs.append(epoch))
    assert epochs == [1, 2]
    assert found.measurements["size"].value == 0.5
    assert case.evaluator.calls.count("export") == (2 if killed == "export" else 1)


def test_a_crash_in_training_costs_an_epoch_and_changes_nothing(case, tmp_path):
    def kill(_epoch, _loss):
        raise Killed

    with pytest.raises(Killed):
        tuned(case, kill)
    epochs = []
    _, network = case.recovery._trained(case.finalist, lambda epoch, _: epochs.append(epoch))
    assert epochs == [2]
    whole = Recovery(
        case.recovery.prepared,
        RunFolder(tmp_path / "other", "r", "p", "d", str(tmp_path), "now", "w", {}),
        "cpu",
        Stopwatch(tmp_path / "s.json"),
    )
    assert weights_digest(network.module) == weights_digest(whole._trained(case.finalist, silent)[1].module)


def test_what_cannot_be_measured_says_why_and_stays_so(case):
    case.evaluator.fails["selection"] = EvaluationFailed("the outputs are not finite")
    found = tuned(case)
    assert found.failure == "the outputs are not finite"
    assert tuned(case) == found


@pytest.mark.parametrize("where", ["selection", "search"])
def test_a_metric_that_raises_over_a_finalist_is_its_failure(case, where):
    case.evaluator.fails[where] = WorkloadError("The metric 'm' raised ValueError: no (at m.py:3)")
    assert tuned(case).failure == "The metric 'm' raised ValueError: no (at m.py:3)"


def test_a_loss_that_raises_in_training_is_that_finalists_failure_and_the_others_go_on(three, tmp_path):
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("unlucky")
        return torch.nn.functional.cross_entropy(outputs, targets)

    three.recovery.prepared.workload = replace(three.recovery.prepared.workload, loss=loss)
    found = list(three.recovery.recovered(three.finalists, partial(told, three.log)))
    line = loss.__code__.co_firstlineno + 3
    assert [f.failure is None for f in found] == [False, True, True]
    assert re.search(rf"raised ValueError: unlucky \(at .*test_recovering.py:{line}\)$", found[0].failure)
    assert (found[0].measurements, found[0].name) == ({}, "f1")
    assert three.case.evaluator.calls.count("export") == 2, "there is nothing to export of the one that failed"
    count = len(calls)
    assert next(three.recovery.recovered(three.finalists, partial(told, three.log))) == found[0]
    assert len(calls) == count, "it stays so"


@pytest.mark.parametrize("where", ["training", "selection"])
def test_a_sample_that_cannot_be_read_is_no_finalists_fault_and_the_run_can_go_on(case, where, tmp_path):
    lost = DataUnreadable("The data role 'train': sample 3 raised OSError: gone")
    case.evaluator.fails["selection"] = lost
    given = case.recovery.prepared.workload
    if where == "training":

        class Lost(torch.utils.data.Dataset):
            def __len__(self):
                return 100

            def __getitem__(self, index):
                raise lost

        case.recovery.prepared.workload = replace(given, data=replace(given.data, train=Lost()))
    with pytest.raises(DataUnreadable):
        tuned(case)
    case.recovery.prepared.workload = given
    case.evaluator.fails.clear()
    assert tuned(case).failure is None


def test_the_small_dense_baseline_shows_no_figure_of_the_knee(case):
    knee = tuned(case)
    told = Measurement(0.9, "", "measured")
    knee = replace(knee, on_search=told, searched={"accuracy": told}, measurements={"accuracy": told})
    baseline = small_dense_of(case.recovery.prepared, knee, case.recovery.run.path / knee.folder / "compressed")
    found = tuned(case, silent, baseline)
    assert found.name == "small-dense"
    assert found.candidate == knee.candidate
    assert found.measurements["accuracy"].value == 0.5
    assert found.searched == {}
    assert found.on_search.value == 0.5


@pytest.fixture
def three(case):
    """Three finalists, and a log of those that were trained."""
    finalists = [replace(case.finalist, name=f"f{n}") for n in (1, 2, 3)]
    return SimpleNamespace(case=case, log=[], finalists=finalists, recovery=case.recovery)


def told(log, number):
    return lambda epoch, _: log.append(f"{number} trained") if epoch == 2 else None


def test_a_recovery_killed_between_finalists_goes_on_with_those_that_are_left(three):
    begun = three.recovery.recovered(three.finalists, partial(told, three.log))
    first = next(begun)
    begun.close()
    found = list(three.recovery.recovered(three.finalists, partial(told, three.log)))
    assert found[0] == first
    assert [f.name for f in found] == ["f1", "f2", "f3"]
    assert three.log == ["1 trained", "2 trained", "3 trained"]
    assert three.case.evaluator.calls.count("selection") == 3


@pytest.fixture
def board(three):
    """The three on another machine, which answers when `let` is set."""
    three.recovery.prepared.definition.evaluator.device = SimpleNamespace(kind="ssh")
    three.let = Event()
    three.let.set()
    ask = three.case.evaluator.ask

    def patiently(network, role, names):
        assert three.let.wait(60)
        return ask(network, role, names)

    three.case.evaluator.ask = patiently
    return three


def test_another_machine_measures_a_finalist_while_the_next_is_trained(board):
    board.let.clear()

    def on_epoch(number):
        return lambda epoch, _: board.let.set() if (number, epoch) == (2, 2) else None

    found = list(board.recovery.recovered(board.finalists, on_epoch))
    assert [(f.name, f.failure, f.measurements["size"].value) for f in found] == [
        (f"f{n}", None, 0.5) for n in (1, 2, 3)
    ]
    assert board.case.evaluator.answers == ["answer"] * 3


@pytest.mark.parametrize("samples", [0, 100])
def test_on_this_host_or_where_the_device_scores_samples_one_is_measured_before_the_next_is_trained(three, samples):
    evaluator = three.recovery.prepared.definition.evaluator
    evaluator.device_samples, evaluator.device = samples, SimpleNamespace(kind="ssh") if samples else LocalDevice()
    three.case.evaluator.calls = three.log
    list(three.recovery.recovered(three.finalists, partial(told, three.log)))
    assert three.log == [step for n in (1, 2, 3) for step in (f"{n} trained", "export", "selection", "search")]
    assert three.case.evaluator.answers == [None] * 3


def test_what_a_finalist_fails_of_on_another_machine_is_its_failure_and_the_others_go_on(board):
    board.case.evaluator.fails["selection on the device"] = EvaluationFailed("the outputs differ")
    found = list(board.recovery.recovered(board.finalists, lambda _: silent))
    assert [f.failure for f in found] == ["the outputs differ", None, None]
    assert [f.epochs for f in found] == [2, 2, 2]


def test_a_machine_that_is_lost_costs_no_training(board):
    board.case.evaluator.fails["selection on the device"] = DeviceLost("gone")
    with pytest.raises(DeviceLost):
        list(board.recovery.recovered(board.finalists, partial(told, board.log)))
    found = list(board.recovery.recovered(board.finalists, partial(told, board.log)))
    assert [f.failure for f in found] == [None] * 3
    assert board.log == ["1 trained", "2 trained", "3 trained"]
    assert board.case.evaluator.calls.count("export") == 3


class InThisProcess:
    """A pool that trains the oldest job when it is waited for; `dies` names those whose worker dies at every attempt."""

    workers = 2

    def __init__(self, three):
        self.three, self.jobs, self.dies = three, deque(), set()

    def submit(self, number, job, on_epoch):
        self.jobs.append((number, job, on_epoch))

    def trained(self):
        number, job, on_epoch = self.jobs.popleft()
        if job.finalist.name in self.dies:
            return number, Trained("by signal 9", died=True)
        finalist = next(f for f in self.three.finalists if f.name == job.finalist.name)
        alone = replace(self.three.case.recovery, watch=Stopwatch())
        return number, Trained(alone.train(finalist, on_epoch))

    def close(self):
        self.three.log.append("closed")


@pytest.fixture
def pooled(three):
    three.pool = InThisProcess(three)
    three.recovery = replace(three.recovery, pool=three.pool)
    three.case.evaluator.calls = three.log
    return three


def results(pooled):
    return list(pooled.recovery.recovered(pooled.finalists, partial(told, pooled.log)))


def test_finalists_that_workers_train_are_what_they_would_be_otherwise(pooled):
    found = results(pooled)
    networks = [stored(pooled.recovery.run.path / f.compressed, pooled.recovery.prepared.model) for f in found]
    alone = tuned(pooled.case, silent, replace(pooled.case.finalist, name="alone"))
    expected = stored(pooled.recovery.run.path / alone.compressed, pooled.recovery.prepared.model)
    assert [f.losses for f in found] == [alone.losses] * 3
    assert {weights_digest(network.module) for network in networks} == {weights_digest(expected.module)}


def test_this_host_measures_when_all_are_trained_and_no_worker_is_left(pooled):
    results(pooled)
    trained = ["1 trained", "2 trained", "3 trained", "closed"]
    assert pooled.log == trained + ["export", "selection", "search"] * 3
    assert set(pooled.recovery.watch.seconds) == {
        "recover.training", "recover.export", "recover.measuring", "recover.waiting",
    }  # fmt: skip


def test_another_machine_measures_while_workers_train(pooled):
    pooled.recovery.prepared.definition.evaluator.device = SimpleNamespace(kind="ssh")
    results(pooled)
    log = pooled.log
    assert log.index("export") < log.index("3 trained") < log.index("closed")


def test_what_workers_have_trained_is_not_trained_again(pooled):
    pooled.recovery.train(pooled.finalists[1], silent)
    results(pooled)
    assert pooled.log[:3] == ["1 trained", "3 trained", "closed"]
    again = InThisProcess(pooled)
    pooled.recovery = replace(pooled.recovery, pool=again)
    pooled.log.clear()
    assert [f.failure for f in results(pooled)] == [None] * 3
    assert pooled.log == ["closed"]


def test_a_finalist_whose_worker_dies_twice_has_failed_and_the_others_go_on(pooled):
    pooled.pool.dies.add("f2")
    found = results(pooled)
    assert [f.failure is None for f in found] == [True, False, True]
    assert "with nothing beside it, by signal 9" in found[1].failure
    pooled.pool.dies.clear()
    assert results(pooled) == found, "it stays so"


@pytest.mark.parametrize("why", ["one worker", "one finalist", "a GPU", "no training"])
def test_one_after_the_other_where_nothing_can_be_side_by_side(pooled, why):
    if why == "one worker":
        pooled.pool.workers = 1
    elif why == "one finalist":
        pooled.finalists = pooled.finalists[:1]
    elif why == "no training":
        pooled.finalists = [replace(f, settings=None) for f in pooled.finalists]
    else:
        pooled.recovery = replace(pooled.recovery, device="cuda")
        pooled.recovery.__dict__["_tuning"] = tuning.Tuning(pooled.recovery.prepared, "cpu")
    results(pooled)
    assert pooled.log[0] == "closed"


def in_steps(case, **changed):
    """The finalist, trained for one epoch in each of three steps; what each step starts from is kept."""
    settings = SETTINGS.model_copy(update={"epochs": 1, "steps": 3, **changed})
    return replace(case.finalist, settings=settings)


def widths(plan, groups):
    return {g.name: g.width - len(plan.removed["out"].get(g.name, ())) for g in groups}


def test_a_finalist_is_cut_in_steps_and_ranked_again_by_its_trained_weights(case):
    """Each step takes the same share of what is left, never what an earlier one has kept out, and the last one all the rest."""
    prepared = case.recovery.prepared
    groups = [group for group in prepared.space.groups if group.name in case.finalist.candidate.edits]
    epochs = []
    found = tuned(case, lambda epoch, _: epochs.append(epoch), in_steps(case))
    folder = case.recovery.run.path / found.folder
    networks = [stored(folder / name / "compressed", prepared.model) for name in ("step-1", "step-2", "")]
    assert epochs == [1, 2, 3]
    assert (found.epochs, len(found.losses)) == (3, 3)
    steps = len(prepared.workload.data.train) // in_steps(case).settings.batch
    assert [step for step, _ in found.curve] == list(range(1, 3 * steps + 1))
    assert [step for step, _ in found.scores] == [steps, 2 * steps, 3 * steps]
    assert networks[-1].candidate == case.finalist.candidate
    for group in groups:
        left = [widths(network.plan, groups)[group.name] for network in networks]
        last = case.finalist.candidate.width(group.name, group.width)
        assert left == [round(group.width * (last / group.width) ** (step / 3)) for step in (1, 2, 3)]
        gone = [set(network.plan.removed["out"][group.name]) for network in networks]
        assert gone[0] <= gone[1] <= gone[2]
    first, second = networks[:2]
    single = next(group for group in groups if len(group.weights) == 1)
    gone = [set(network.plan.removed["out"][single.name]) for network in (first, second)]
    kept = [channel for channel in range(single.width) if channel not in gone[0]]
    norms = dict(zip(kept, first.module.get_submodule(single.name).weight.flatten(1).norm(dim=1).tolist(), strict=True))
    assert max(norms[i] for i in gone[1] - gone[0]) < min(norms[i] for i in kept if i not in gone[1])


def test_a_crash_between_steps_costs_the_step_that_was_under_way(case):
    def kill(epoch, _loss):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        tuned(case, kill, in_steps(case))
    epochs = []
    assert tuned(case, lambda epoch, _: epochs.append(epoch), in_steps(case)).epochs == 3
    assert epochs == [3], "the second step's only epoch was over"


def test_a_rewound_finalist_trains_early_weights_by_what_trained_ones_say(case, monkeypatch):
    prepared = case.recovery.prepared
    early = network("residual")
    with torch.no_grad():
        for parameter in early.parameters():
            parameter.mul_(0.5)
    case.recovery.prepared.workload = replace(prepared.workload, build_early=lambda: early)
    started = []
    train = tuning.fine_tune

    def told(module, *rest):
        started.append(module)
        return train(module, *rest)

    monkeypatch.setattr(tuning, "fine_tune", told)
    found = tuned(case, silent, in_steps(case, rewind=True))
    folder = case.recovery.run.path / found.folder
    for module, name in zip(started, ("step-1", "step-2", ""), strict=True):
        plan = stored(folder / name / "compressed", prepared.model).plan
        assert weights_digest(module) == weights_digest(apply(early, plan))


@pytest.mark.parametrize("masks", ["gradual", "movement"])
def test_masks_that_training_chooses_are_those_of_the_plan(case, masks):
    """In a network that loses channels too: the module is what its plan makes of the original, but for trained values."""
    prepared = case.recovery.prepared
    first, *others = [group for group in prepared.space.groups if group.weights]
    edits = {first.name: (Edit("channels", first.width // 2, "l2"),)}
    edits |= {group.name: (Edit("weights", 300, "magnitude"),) for group in others}
    zeros = {
        g.name: {"weights/magnitude": torch.rand(sum(len(w.rows) * w.inputs * w.kernel for w in g.weights))}
        for g in others
    }
    scores = {first.name: case.scores[first.name], **zeros}
    trial = Trial(7, "sampler", "", Evaluation(Candidate(edits), "abcdef123", {}), None)
    settings = SETTINGS.model_copy(update={"masks": masks})
    found = tuned(case, silent, replace(finalist_of(prepared, scores, trial, 1), settings=settings))
    network = stored(case.recovery.run.path / found.folder / "compressed", prepared.model)
    assert network.candidate == Candidate(edits)
    reference = apply(prepared.model, network.plan)
    for group in others:
        for own in group.weights:
            weight, expected = (m.get_submodule(own.layer).weight for m in (network.module, reference))
            assert torch.equal(weight == 0, expected == 0)
        total = sum(network.module.get_submodule(own.layer).weight.numel() for own in group.weights)
        gone = sum(int((network.module.get_submodule(own.layer).weight == 0).sum()) for own in group.weights)
        assert gone == pytest.approx(0.7 * total, abs=1)
    assert nonzero_after(prepared.model, network.plan) == sum(int((p != 0).sum()) for p in network.module.parameters())


def test_new_weights_leave_gates_as_they_always_begin():
    model = network("residual")
    found = find_groups(model, make_workload(model).example_inputs)
    plan = with_gates(Plan(), model, found.blocks, make_workload(model).example_inputs)
    fresh = gated_blocks(renewed(model, plan, 0))
    assert fresh.keys() == plan.gates.keys()
    for block in fresh.values():
        assert not block.gate.weight.any()
        assert (block.norm.weight.item(), block.norm.bias.item()) == (SPREAD, OPEN)
    assert not torch.equal(renewed(model, plan, 0).conv1.weight, model.conv1.weight)


def with_trainer(case, function):
    prepared = SimpleNamespace(**{**vars(case.recovery.prepared), "trainer": Trainer("mine.py:train", function, "d1")})
    return SimpleNamespace(**{**vars(case), "recovery": replace(case.recovery, prepared=prepared)})


def test_a_trainer_of_the_users_own_trains_finalists_and_leaves_no_files(case):
    def train(model, _teacher, _data, budget, save):
        with torch.no_grad():
            model.linear.bias.add_(1.0)
        save(model, {"epoch": budget.epochs, "loss": 0.5})
        return model

    found = tuned(with_trainer(case, train))
    assert (found.epochs, found.losses, found.failure) == (1, (0.5,), None)
    assert not [*case.recovery.run.path.rglob("training")]


def test_a_trainer_that_fails_costs_its_finalist_alone(case):
    def train(model, *_):
        raise ValueError("no luck")

    own = with_trainer(case, train)
    found = tuned(own)
    assert found.failure.startswith("The trainer mine.py:train raised ValueError: no luck (at ")
    assert not [*case.recovery.run.path.rglob("training")]
    assert tuned(own) == found


def test_the_text_of_a_trainer_belongs_to_a_run(case):
    from secateur.pipelines.run import identity_of

    def of(trainer):
        return identity_of(
            SimpleNamespace(model=case.evaluator.model, evaluator=SimpleNamespace(device="here"), trainer=trainer)
        )

    kinds = {of(None), of(Trainer("a:b", len, "1")), of(Trainer("a:b", len, "2")), of(Trainer("a:c", len, "1"))}
    assert len(kinds) == 4
