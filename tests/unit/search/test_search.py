"""The search on an invented network whose figures are formulas: seconds become microseconds."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from invented import HARM, OBJECTIVES, evaluate, make_space, worker
from searches import GOALS, problem, run, study
from secateur.compression.groups import FoundGroups
from secateur.definition import SearchSpaceDefinition
from secateur.execution import Inline
from secateur.records import BASELINES, Evaluation, Goal, Group, Measurement, Member
from secateur.search.audit import arm_results
from secateur.search.ledger import Ledger, own
from secateur.search.loop import FRUITLESS, Stopping, search
from secateur.search.sensitivity import known_sensitivities, sweep
from secateur.search.warm_start import SCREENED, best_methods
from secateur.search_spaces import build_space

pytestmark = pytest.mark.usefixtures("in_memory")


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
    assert best_methods(make_space(), progress.trials) == {"channels": "l2"}
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


@pytest.mark.parametrize("widths", range(1, 12))
def test_the_sweep_takes_as_many_different_widths_as_it_may(widths, tmp_path):
    members = (Member("x", "out", "convolution", (), ()),)
    group = Group("a", "Conv2d", members, widths + 1, tuple(range(widths + 1)), 100, 100)
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1", "l2"], "removed": [0.0, 0.99]}]})
    space = build_space(declared, FoundGroups((group,), (), None))
    ledger = Ledger(problem(space, dense=DENSE), study(tmp_path, space=space))
    probes = sweep(ledger, Inline(worker), {"channels": "l1"}, 50)
    assert len({s.edit.level for s in probes if s.edit.by == "l1"}) == min(3, widths)
    assert len([s for s in probes if s.edit.by == "l2"]) == 1, "the other methods are compared at one width"
    assert sweep(ledger, None, {"channels": "l1"}, 50) == probes, "a restart reads them back"


def test_the_methods_are_not_compared_group_by_group_where_that_would_cost_more_than_the_search(tmp_path):
    probes = sweep(Ledger(problem(), study(tmp_path)), Inline(worker), {"channels": "l1"}, 5)
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
        figures = {"damage": 0.1, "macs": 0.5, "parameters": 1.0, "nonzero": 1.0}
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


def test_an_objective_that_cannot_be_foreseen_is_searched_all_the_same(tmp_path):
    """The knapsack then saves MACs."""

    def shipped(candidate):
        found = evaluate(candidate)
        memory = dataclasses.replace(found.measurements["macs"], value=3 * found.measurements["macs"].value)
        return dataclasses.replace(found, measurements={**found.measurements, "memory": memory})

    goal = Goal("memory", "at_most", 2.5, 2.5, "memory at most 2.5")
    objectives = {"accuracy": "maximize", "memory": "minimize"}
    dense = shipped(make_space().dense()).measurements
    made = run(tmp_path, 40, evaluate=shipped, objectives=objectives, goals=(*GOALS, goal), dense=dense)
    assert made.evaluated == 40
    assert not [t for t in made.trials if t.evaluation.rejected]
    assert {"knapsack", "sampler"} <= {t.arm for t in own(made.trials)}


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


def test_the_knapsack_plans_nothing_that_a_limit_beside_the_objectives_rules_out(tmp_path):
    """A limit on parameters, where MACs are the objective."""
    goal = Goal("parameters", "at_most", 600.0, 600.0, "parameters at most 600")
    made = run(tmp_path, 40, goals=(*GOALS, goal))
    planned = [t for t in made.trials if t.arm == "knapsack"]
    assert planned
    assert not [t for t in planned if t.evaluation.rejected]
