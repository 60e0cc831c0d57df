"""The search on an invented network whose figures are formulas: seconds become microseconds."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest

from secateur.compression.groups import FoundGroups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import StateError
from secateur.records import Candidate, Evaluation, Group, Measurement, Member
from secateur.search.loop import Problem, search
from secateur.search.samplers import SAMPLERS
from secateur.search.study import Study, storage_errors
from secateur.search.warm_start import best_method, sensitivities, sweep
from secateur.search_spaces import build_space

OBJECTIVES = {"accuracy": "maximize", "macs": "minimize"}
HARM = {"a": 0.02, "b": 0.5, "c": 0.1}


def make_space(methods=("l1", "l2")):
    members = (Member("x", "out", "batch norm", (), ()),)
    groups = tuple(Group(name, "Conv2d", members, 32, tuple(range(32)), 100, 100) for name in HARM)
    declared = SearchSpaceDefinition.model_validate(
        {"groups": [{"methods": list(methods), "multiple_of": 4, "removed": [0.0, 0.9]}]}
    )
    return build_space(declared, FoundGroups(groups, (), None))


def evaluate(candidate: Candidate) -> Evaluation:
    damage, macs = 0.0, 0.0
    for name, cut in candidate.cuts.items():
        removed = 1 - cut.kept / 32
        damage += HARM[name] * removed**2 * (0.8 if cut.method == "l2" else 1.0)
        macs += (1 - removed) / len(candidate.cuts)
    figures = {"accuracy": 0.9 - damage, "macs": macs, "damage": damage, "size": macs}
    return Evaluation(candidate, candidate.key, {name: Measurement(v, "", "computed") for name, v in figures.items()})


def problem(space=None, evaluated=None, **changes):
    def counted(candidate):
        if evaluated is not None:
            evaluated.append(candidate.key)
        return evaluate(candidate)

    made = Problem(
        space or make_space(),
        OBJECTIVES,
        lambda c: c.key,
        counted,
        lambda e: {"accuracy": 0.5 - e.measurements["accuracy"].value},
    )
    return dataclasses.replace(made, **changes)


def study(folder, name="s", sampler="tpe", seed=0, space=None):
    return Study(folder / "studies.db", name, (space or make_space()).parameters(), OBJECTIVES, sampler, seed)


def test_the_budget_is_spent_on_different_networks(tmp_path):
    evaluated = []
    progress = search(problem(evaluated=evaluated), study(tmp_path), 40)
    assert progress.evaluated == len(evaluated) == len(set(evaluated)) == 40
    assert len(progress.trials) >= 40
    for trial in progress.trials:
        if trial.same_as is not None:
            original = next(t for t in progress.trials if t.number == trial.same_as)
            assert original.evaluation.measurements == trial.evaluation.measurements


def test_warm_starts_come_first_and_in_order(tmp_path):
    progress = search(problem(), study(tmp_path), 40)
    arms = [t.arm for t in progress.trials]
    assert arms[0] == "dense"
    order = list(dict.fromkeys(arms))
    assert order == ["dense", "uniform", "sensitivity", "knapsack", "sampler"]
    assert best_method(make_space(), progress.trials) == "l2"
    assert {s.group for s in sensitivities(make_space(), progress.trials)} == set(HARM)


def test_knapsack_points_cut_what_hurts_least(tmp_path):
    progress = search(problem(), study(tmp_path), 40)
    points = [t.evaluation.candidate for t in progress.trials if t.arm == "knapsack"]
    assert points
    assert all(c.cuts["a"].kept <= c.cuts["c"].kept <= c.cuts["b"].kept for c in points)


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
            search(problem(evaluate=stopping), study(tmp_path), 36)
    stop = -1
    progress = search(problem(evaluate=stopping), study(tmp_path), 36)
    assert len(evaluated) == len(set(evaluated)) == 36
    assert progress.evaluated == 36
    assert [t.label for t in progress.trials if t.label].count("dense") == 1
    labels = [t.label for t in progress.trials if t.label]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("drawn", [0, 1, 3])
def test_a_kill_in_the_middle_of_an_ask_loses_no_planned_trial(tmp_path, drawn):
    """Optuna commits the numbers of a trial one after the other."""
    first = study(tmp_path)
    planned = {parameter.name: parameter.high or parameter.names[1] for parameter in make_space().parameters()}
    first.enqueue(planned, "uniform", "the plan")
    trial = first._study.ask()
    for name, distribution in list(first._distributions.items())[:drawn]:
        trial._suggest(name, distribution)
    again = study(tmp_path)
    assert again.recover() == 1
    asked = again.ask()
    assert (asked.label, asked.values) == ("the plan", planned)


@pytest.mark.parametrize("widths", range(1, 12))
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_sweep_takes_as_many_different_widths_as_it_may(widths, levels):
    members = (Member("x", "out", "convolution", (), ()),)
    group = Group("a", "Conv2d", members, widths + 1, tuple(range(widths + 1)), 100, 100)
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1"], "removed": [0.0, 0.99]}]})
    planned = list(sweep(build_space(declared, FoundGroups((group,), (), None)), [], levels))
    assert len({p.candidate.cuts["a"].kept for p in planned}) == len(planned) == min(levels, widths)


def test_an_objective_that_costs_the_dense_network_nothing(tmp_path):
    objectives = {"accuracy": "maximize", "damage": "minimize"}
    made = Study(tmp_path / "studies.db", "s", make_space().parameters(), objectives, "random", 0)
    progress = search(problem(objectives=objectives), made, 30)
    assert progress.evaluated == 30


def test_a_search_told_to_its_end_evaluates_nothing_more(tmp_path):
    search(problem(), study(tmp_path), 20)
    evaluated = []
    progress = search(problem(evaluated=evaluated), study(tmp_path), 20)
    assert evaluated == []
    assert progress.evaluated == 20


def test_failures_count_and_are_kept_with_their_reason(tmp_path):
    def fragile(candidate):
        if candidate.cuts["b"].kept < 16:
            return Evaluation(candidate, candidate.key, {}, "it broke")
        return evaluate(candidate)

    progress = search(problem(evaluate=fragile), study(tmp_path), 30)
    failed = [t for t in progress.trials if t.evaluation.failure]
    assert failed
    assert {t.evaluation.failure for t in failed} == {"it broke"}
    again = study(tmp_path).trials()
    assert [t.evaluation for t in again] == [t.evaluation for t in progress.trials]


def test_an_exhausted_space_ends_the_search(tmp_path):
    members = (Member("x", "out", "convolution", (), ()),)
    group = Group("a", "Conv2d", members, 4, (0, 1, 2, 3), 100, 100)
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1"], "removed": [0.0, 0.8]}]})
    space = build_space(declared, FoundGroups((group,), (), None))

    def simple(candidate):
        kept = candidate.cuts["a"].kept
        figures = {"accuracy": kept / 4, "macs": kept / 4, "damage": 1 - kept / 4}
        return Evaluation(candidate, candidate.key, {n: Measurement(v, "", "computed") for n, v in figures.items()})

    progress = search(problem(space, evaluate=simple), study(tmp_path, sampler="random", space=space), 50)
    assert progress.evaluated == 4


def test_the_sampler_finds_the_better_method_and_spares_the_sensitive_group(tmp_path):
    progress = search(problem(), study(tmp_path), 80)
    sampled = [t.evaluation for t in progress.trials if t.arm == "sampler" and t.same_as is None]
    feasible = [e for e in sampled if e.measurements["accuracy"].value > 0.7 and e.measurements["macs"].value < 0.6]
    assert feasible
    assert sum(e.candidate.cuts["b"].kept for e in feasible) > sum(e.candidate.cuts["a"].kept for e in feasible)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_studies_share_a_database_without_meeting(sampler, tmp_path):
    one = search(problem(), study(tmp_path, "one", sampler), 15)
    two = search(problem(), study(tmp_path, "two", sampler), 15)
    assert one.evaluated == two.evaluated == 15


def test_a_storage_that_fails_is_said_in_words(tmp_path):
    """Optuna wraps what SQLite says."""
    database = tmp_path / "studies.db"
    made = study(tmp_path)
    made.enqueue({}, "uniform", "x")
    with sqlite3.connect(database) as connection:
        connection.execute("drop table trials")
    with (
        pytest.raises(
            StateError, match="studies.db cannot be used: no such table: trials.*every finished trial is kept"
        ),
        storage_errors(database),
    ):
        made.enqueue({}, "uniform", "y")
