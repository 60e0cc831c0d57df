"""The search on an invented network whose figures are formulas: seconds become microseconds."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import optuna
import pytest
import torch

from invented import HARM, OBJECTIVES, evaluate, exact, make_space, resolve, worker
from secateur.compression.groups import FoundGroups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import StateError
from secateur.execution import Inline
from secateur.records import BASELINES, Evaluation, Goal, Group, Measurement, Member, Trial
from secateur.search.audit import arm_results
from secateur.search.ledger import Ledger, Problem, own
from secateur.search.loop import FRUITLESS, Stopping, search
from secateur.search.samplers import SAMPLERS
from secateur.search.sensitivity import known_sensitivities, sweep
from secateur.search.storage import open_storage, storage_errors
from secateur.search.study import Pending, Proposal, Study, Subject
from secateur.search.warm_start import SCREENED, best_method, method_damages
from secateur.search_spaces import build_space

GOALS = (Goal("accuracy", "at_least", 0.8, 0.5, "accuracy at least 0.8"),)


def problem(space=None, **changes):
    space = space or make_space()
    saliencies = {name: {m: torch.linspace(0, 1, 32) for m in ("l1", "l2")} for name in HARM}
    dense = evaluate(space.dense()).measurements
    return dataclasses.replace(Problem(space, OBJECTIVES, resolve, exact, dense, GOALS, saliencies), **changes)


def study(folder, name="s", sampler="tpe", seed=0, space=None, objectives=None):
    space = space or make_space()
    subject = Subject(space, objectives or OBJECTIVES, {})
    return Study(folder / "studies.db", name, subject, sampler, seed)


def run(folder, budget, *, evaluate=evaluate, evaluated=None, stopping=None, executor=None, **changes):
    """One search; returns its ledger. evaluated: keys are added to it as they are evaluated."""
    opening = {k: changes.pop(k) for k in ("name", "sampler", "seed") if k in changes}
    made = problem(**changes)

    def counted(job):
        if evaluated is not None and not job.fidelity.probe:
            evaluated.append(job.candidate.key)
        return worker(job, evaluate)

    ledger = Ledger(made, study(folder, space=made.space, objectives=made.objectives, **opening))
    ledger.ended = search(ledger, executor or Inline(counted), stopping or Stopping(budget))
    return ledger


def test_the_budget_is_spent_on_different_networks(tmp_path):
    evaluated = []
    progress = run(tmp_path, 40, evaluated=evaluated)
    assert progress.evaluated == len(evaluated) == len(set(evaluated)) == 40
    assert len(progress.trials) >= 40
    for trial in progress.trials:
        if trial.same_as is not None:
            original = next(t for t in progress.trials if t.number == trial.same_as)
            assert original.evaluation.measurements == trial.evaluation.measurements


def test_warm_starts_come_first_and_in_order(tmp_path):
    progress = run(tmp_path, 40)
    arms = [t.arm for t in progress.trials]
    assert arms[0] == "dense"
    order = list(dict.fromkeys(arms))
    assert order == ["dense", "global", "knapsack", "uniform", "random", "sampler"]
    assert best_method(make_space(), progress.trials) == "l2"
    probes = known_sensitivities(progress.study)
    assert {s.group for s in probes} == set(HARM)
    assert all(
        s.damage == pytest.approx(HARM[s.group] * s.removed**2 * (0.8 if s.edit.by == "l2" else 1)) for s in probes
    )


def test_a_score_that_is_minimised_leads_the_same_way(tmp_path):
    def lower_is_better(candidate):
        found = evaluate(candidate)
        return dataclasses.replace(found, measurements=negated(found.measurements))

    def negated(measurements):
        score = measurements["accuracy"]
        return {**measurements, "accuracy": dataclasses.replace(score, value=-score.value)}

    plain = run(tmp_path, 45, name="plain")
    other = run(
        tmp_path,
        45,
        name="negated",
        evaluate=lower_is_better,
        objectives={**OBJECTIVES, "accuracy": "minimize"},
        goals=(Goal("accuracy", "at_most", -0.8, -0.5, "accuracy at most -0.8"),),
        dense=negated(plain.problem.dense),
        score_direction="minimize",
    )
    keys = [[t.evaluation.candidate.key for t in ledger.trials] for ledger in (plain, other)]
    assert keys[0] == keys[1]
    assert {t.arm for t in plain.trials} >= {"global", "knapsack", "sampler"}
    assert other.archive.points.tolist() == plain.archive.points.tolist()


def test_knapsack_points_cut_what_hurts_least(tmp_path):
    points = [t.evaluation.candidate for t in run(tmp_path, 60).trials if t.arm == "knapsack"]
    assert len(points) > 10
    kept = {name: sum(c.width(name, 32) for c in points) for name in HARM}
    assert kept["a"] < kept["c"] < kept["b"]
    chosen = [edit.by for c in points for (edit,) in c.edits.values()]
    assert chosen.count("l2") > 2 * chosen.count("l1"), "the better method is seen to be better"


def test_a_search_that_was_stopped_anywhere_goes_on_and_repeats_nothing(tmp_path):
    """Stopped by an exception inside the n-th evaluation, for many n; each start goes on where the last one was."""
    evaluated, stops = [], iter([1, 2, 5, 9, 14, 15, 21, 30])

    class Stop(Exception):
        pass

    def stopping(candidate):
        if len(evaluated) == stop:
            raise Stop
        evaluated.append(candidate.key)
        return evaluate(candidate)

    for stop in stops:  # noqa: B007 # read by the closure
        with pytest.raises(Stop):
            run(tmp_path, 36, evaluate=stopping)
    stop = -1
    progress = run(tmp_path, 36, evaluate=stopping)
    assert len(evaluated) == len(set(evaluated)) == 36
    assert progress.evaluated == 36
    labels = [t.label for t in progress.trials if t.label]
    assert labels.count("dense") == 1
    assert len(labels) == len(set(labels))


def test_a_trial_that_was_written_but_not_told_is_finished_at_the_next_start(tmp_path):
    """A kill between the two transactions of one trial."""
    told = run(tmp_path, 5).trials
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
        connection.execute("update trials set state = 'RUNNING' where number = 3")
        connection.execute("delete from trial_values where trial_id = (select trial_id from trials where number = 3)")
        connection.execute(
            "delete from study_system_attributes where key like 'dashboard:4:note%'"
        )  # the ids begin at 1
    before = notes(tmp_path)
    again = study(tmp_path)
    assert [t.evaluation for t in again.trials()] == [t.evaluation for t in told]
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
        states = connection.execute("select distinct state from trials").fetchall()
        values = connection.execute("select count(*) from trial_values").fetchone()
    assert states == [("COMPLETE",)]
    assert values == (2 * len(told),)
    assert notes(tmp_path).keys() - before.keys() == {"dashboard:4:note_str:0"}
    assert len(notes(tmp_path)) == len(told)


def notes(folder):
    """What the dashboard shows beside the trials."""
    with contextlib.closing(sqlite3.connect(folder / "studies.db")) as connection, connection:
        return dict(
            connection.execute("select key, value_json from study_system_attributes where key like '%note_str%'")
        )


def test_the_timeline_shows_when_a_network_was_worked_on(tmp_path):
    ledger = Ledger(problem(), study(tmp_path))
    candidate = ledger.problem.space.dense()
    took = dataclasses.replace(evaluate(candidate), seconds=100.0)
    for _ in range(2):  # the second one is a repeat: no work
        ledger.tell(ledger.study.ask(Proposal(candidate)), candidate.key, took)
    stored = optuna.load_study(study_name="s", storage=open_storage(tmp_path / "studies.db")).trials
    assert [t.user_attrs.get("same_as") for t in stored] == [None, 0]
    assert stored[0].duration.total_seconds() == pytest.approx(100, abs=5)
    assert stored[1].duration.total_seconds() < 5


def test_a_trial_that_was_asked_elsewhere_is_told_like_any_other(tmp_path):
    """No trial in memory waits for it; the sampler learns from it all the same, and of nothing that only people read."""
    made, space = study(tmp_path), make_space()
    candidate = space.uniform(0.5, "l2")
    made.tell(
        Pending(Proposal(candidate), space.values(candidate)), evaluate(candidate), {"accuracy at least 0.8": 0.1}
    )
    (remembered,) = made._memory.trials
    assert remembered.values == [evaluate(candidate).measurements[name].value for name in OBJECTIVES]
    assert remembered.system_attrs == {"constraints": [0.1]}
    (told,) = study(tmp_path).trials()
    assert told.evaluation == evaluate(candidate)
    assert list(notes(tmp_path)) == ["dashboard:1:note_str:0"]


@pytest.mark.parametrize("widths", range(1, 12))
def test_the_sweep_takes_as_many_different_widths_as_it_may(widths, tmp_path):
    members = (Member("x", "out", "convolution", (), ()),)
    group = Group("a", "Conv2d", members, widths + 1, tuple(range(widths + 1)), 100, 100)
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1", "l2"], "removed": [0.0, 0.99]}]})
    space = build_space(declared, FoundGroups((group,), (), None))
    ledger = Ledger(problem(space, dense=DENSE), study(tmp_path, space=space))
    probes = sweep(ledger, Inline(worker), "l1", 50)
    assert len({s.edit.level for s in probes if s.edit.by == "l1"}) == min(3, widths)
    assert len([s for s in probes if s.edit.by == "l2"]) == 1, "the other methods are compared at one width"
    assert sweep(ledger, None, "l1", 50) == probes, "a restart reads them back"


def test_the_methods_are_not_compared_group_by_group_where_that_would_cost_more_than_the_search(tmp_path):
    probes = sweep(Ledger(problem(), study(tmp_path)), Inline(worker), "l1", 5)
    assert {s.edit.by for s in probes} == {"l1"}


DENSE = {n: Measurement(v, "", "computed") for n, v in {"accuracy": 0.9, "macs": 1.0, "damage": 0.0}.items()}


def test_an_objective_that_costs_the_dense_network_nothing(tmp_path):
    assert (
        run(tmp_path, 30, objectives={"accuracy": "maximize", "damage": "minimize"}, sampler="random").evaluated == 30
    )


def test_a_search_told_to_its_end_evaluates_nothing_more(tmp_path):
    run(tmp_path, 20)
    evaluated = []
    assert run(tmp_path, 20, evaluated=evaluated).evaluated == 20
    assert evaluated == []


def test_failures_count_and_are_kept_with_their_reason(tmp_path):
    def fragile(candidate):
        if candidate.width("b", 32) < 16:
            return Evaluation(candidate, candidate.key, {}, "it broke")
        return evaluate(candidate)

    progress = run(tmp_path, 30, evaluate=fragile)
    failed = [t for t in progress.trials if t.evaluation.failure]
    assert failed
    assert {t.evaluation.failure for t in failed} == {"it broke"}
    again = study(tmp_path).trials()
    assert [t.evaluation for t in again] == [t.evaluation for t in progress.trials]


def test_where_every_evaluation_fails_the_budget_ends_in_failures_with_their_reason(tmp_path):
    """Probes of single cuts succeed, so there are sensitivities but no score to fit anything on."""
    made = run(tmp_path, 20, evaluate=lambda c: Evaluation(c, c.key, {}, "the metric raised"))
    assert known_sensitivities(made.study)
    assert made.evaluated == 20
    assert {t.evaluation.failure for t in made.trials} == {"the metric raised"}


def test_a_space_without_the_dense_network_is_searched_and_every_group_is_cut(tmp_path):
    choices = {
        n: dataclasses.replace(c, ladder=c.ladder[c.widths.index(16) :]) for n, c in make_space().choices.items()
    }
    space = dataclasses.replace(make_space(), choices=choices)
    made = run(tmp_path, 40, space=space)
    assert made.evaluated == 40
    assert {t.arm for t in made.trials} == {"global", "knapsack", "uniform", "random", "sampler"}
    assert all(t.evaluation.candidate.width(name, 32) <= 16 for t in made.trials for name in HARM)


def test_negative_scores_that_are_a_constraint_and_no_objective(tmp_path):
    """-MSE, say. The probes aim at the floor that the constraint leaves during the search."""

    def negative(candidate):
        found = evaluate(candidate)
        score = found.measurements["accuracy"]
        lower = dataclasses.replace(score, value=score.value - 3)
        return dataclasses.replace(found, measurements={**found.measurements, "accuracy": lower})

    goals = (Goal("accuracy", "at_least", -2.2, -2.5, "accuracy at least -2.2"),)
    dense = negative(make_space().dense()).measurements
    objectives = {"damage": "minimize", "macs": "minimize"}
    made = run(tmp_path, 45, evaluate=negative, objectives=objectives, goals=goals, dense=dense)
    assert made.evaluated == 45
    probes = [t for t in made.trials if t.arm == "global" and t.fraction != SCREENED]
    assert probes
    scores = [t.evaluation.measurements["accuracy"].value for t in made.trials if t.arm == "global"]
    assert min(abs(score + 2.5) for score in scores) < 0.2, "one of them comes near the floor"


def test_what_a_planned_trial_was_is_read_from_its_record_and_not_from_its_label(tmp_path):
    """Names of methods may hold anything: a label is for people."""

    def took(harm):
        found = evaluate(make_space().dense())
        damage = dataclasses.replace(found.measurements["damage"], value=harm)
        return dataclasses.replace(found, measurements={**found.measurements, "damage": damage})

    def trial(method, harm):
        return Trial(0, "global", f"global {SCREENED:.3f} {method}", took(harm), None, method, SCREENED)

    trials = [trial("by l1", 0.1), trial("by l2", 0.9), trial("my l1", 0.5)]
    assert method_damages(trials) == {"by l1": 0.1, "by l2": 0.9, "my l1": 0.5}
    assert best_method(make_space(), trials) == "by l1"
    made = run(tmp_path, 30)
    kept = {t.label: (t.method, t.fraction) for t in study(tmp_path).trials() if t.label}
    assert kept["uniform 0.375 l2"] == ("l2", 0.375)
    assert kept["dense"] == (None, None)
    assert kept == {t.label: (t.method, t.fraction) for t in made.trials if t.label}


def test_an_exhausted_space_ends_the_search(tmp_path):
    members = (Member("x", "out", "convolution", (), ()),)
    group = Group("a", "Conv2d", members, 4, (0, 1, 2, 3), 100, 100)
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1"], "removed": [0.0, 0.8]}]})
    space = build_space(declared, FoundGroups((group,), (), None))

    def simple(candidate):
        kept = candidate.width("a", 32)
        figures = {"accuracy": kept / 4, "macs": kept / 4, "damage": 1 - kept / 4}
        return Evaluation(candidate, candidate.key, {n: Measurement(v, "", "computed") for n, v in figures.items()})

    saliencies = {"a": {"l1": torch.arange(4.0)}}

    def simple_worker(job):
        figures = {"damage": 0.1, "macs": 0.5, "parameters": 1.0}
        return (
            simple(job.candidate)
            if not job.fidelity.probe
            else Evaluation(job.candidate, "", {n: Measurement(v, "", "computed") for n, v in figures.items()})
        )

    progress = run(tmp_path, 50, space=space, executor=Inline(simple_worker), sampler="random", saliencies=saliencies)
    assert progress.evaluated == 4
    assert progress.ended == "the space is exhausted"


def test_the_search_spares_the_sensitive_group_and_beats_every_baseline(tmp_path):
    made = run(tmp_path, 80)
    good = [t.evaluation for t in own(made.trials) if t.arm in ("sampler", "knapsack")]
    good = [e for e in good if e.measurements["accuracy"].value > 0.7 and e.measurements["macs"].value < 0.6]
    assert sum(e.candidate.width("b", 32) for e in good) > sum(e.candidate.width("a", 32) for e in good) > 0
    arms = arm_results(made.trials, OBJECTIVES, made.problem.dense, GOALS)
    assert [a.arm for a in arms] == ["search", *BASELINES]
    assert all(a.networks for a in arms)
    search, *others = arms
    assert all(search.hypervolume > a.hypervolume for a in others)


@pytest.mark.parametrize("limit", [0.7, 0.5])
def test_a_cheap_constraint_rejects_before_anything_is_evaluated(tmp_path, limit):
    goal = Goal("macs", "at_most", limit, limit, f"macs at most {limit}")
    evaluated = []
    made = run(tmp_path, 60, goals=(*GOALS, goal), evaluated=evaluated, sampler="random")
    rejected = [t for t in made.trials if t.evaluation.stopped]
    assert rejected
    assert all(t.evaluation.rejected and limit < t.evaluation.measurements["macs"].value for t in rejected)
    assert "accuracy" not in rejected[0].evaluation.measurements
    assert not {t.evaluation.candidate.key for t in rejected} & set(evaluated)
    assert made.evaluated == len(evaluated), "what was rejected does not count"
    sampled = [t for t in own(made.trials) if t.arm in ("sampler", "knapsack")]
    assert all(t.evaluation.measurements["macs"].value <= limit for t in sampled)


def test_a_forecast_cost_rejects_too(tmp_path):
    """Size is not known beforehand here; it is linear in what is."""
    goal = Goal("size", "at_most", 2.0, 2.0, "size at most 2")
    made = run(tmp_path, 60, goals=(*GOALS, goal), sampler="random")
    rejected = [t.evaluation for t in made.trials if t.evaluation.stopped]
    assert rejected
    assert all(e.measurements["size"].provenance == "predicted" for e in rejected)
    assert all(4 * e.measurements["macs"].value > 2.0 for e in rejected)


def test_constraints_that_leave_no_room_end_the_search(tmp_path):
    goal = Goal("macs", "at_most", 0.01, 0.01, "macs at most 0.01")
    made = run(tmp_path, 60, goals=(*GOALS, goal), sampler="random")
    assert f"{FRUITLESS} asks in a row" in made.ended


def test_time_and_patience_end_a_search(tmp_path):
    clock = iter(range(1000))
    ledger = Ledger(problem(), study(tmp_path))
    inline = Inline(worker)
    assert search(ledger, inline, Stopping(500, seconds=40), lambda: next(clock)) == "the time is up"
    assert 5 < ledger.evaluated < 40
    made = run(tmp_path, 500, name="patient", stopping=Stopping(500, patience=8))
    assert made.ended == "8 networks in a row have added nothing to the front"
    assert made.evaluated < 300


def test_an_earlier_front_is_evaluated_first(tmp_path):
    front = tuple(make_space().uniform(f, "l2") for f in (0.25, 0.75))
    made = run(tmp_path, 40, prior=front)
    taken = [t for t in made.trials if t.arm == "prior"]
    assert [t.evaluation.candidate for t in taken] == list(front)
    assert taken[-1].number < min(t.number for t in made.trials if t.arm == "knapsack")


class Shuffled:
    """Four workers that finish in an order of their own."""

    workers = 4

    def __init__(self):
        self.jobs, self.most, self.submitted = {}, 0, []

    def submit(self, number, job):
        if not job.fidelity.probe:
            self.submitted.append(job.candidate.key)
        self.jobs[number] = job
        self.most = max(self.most, len(self.jobs))

    def wait(self):
        number = sorted(self.jobs, key=lambda n: (n * 7) % 5)[0]
        return number, worker(self.jobs.pop(number))


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_no_two_workers_evaluate_one_network(tmp_path, sampler):
    executor = Shuffled()
    made = run(tmp_path, 60, executor=executor, sampler=sampler)
    assert executor.most == 4
    assert len(executor.submitted) == len(set(executor.submitted)) == made.evaluated == 60
    assert [t.number for t in made.trials] == list(range(len(made.trials)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_studies_share_a_database_without_meeting(sampler, tmp_path):
    one = run(tmp_path, 15, name="one", sampler=sampler)
    two = run(tmp_path, 15, name="two", sampler=sampler)
    assert one.evaluated == two.evaluated == 15


def test_a_storage_that_fails_is_said_in_words(tmp_path):
    """Optuna wraps what SQLite says."""
    database = tmp_path / "studies.db"
    made = study(tmp_path)
    asked = made.ask()
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("drop table trials")
    with (
        pytest.raises(
            StateError, match="studies.db cannot be used: no such table: trials.*every finished trial is kept"
        ),
        storage_errors(database),
    ):
        made.tell(asked, evaluate(make_space().dense()), {})
