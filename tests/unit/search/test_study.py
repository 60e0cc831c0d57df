"""Studies as they lie in SQLite: what a restart, another study and the dashboard find there."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import optuna
import pytest

from invented import OBJECTIVES, evaluate, make_space
from searches import problem, run, study
from secateur.errors import StateError
from secateur.records import Evaluation, Trial
from secateur.search.ledger import Ledger
from secateur.search.samplers import SAMPLERS
from secateur.search.storage import open_storage, storage_errors
from secateur.search.study import Pending, Proposal
from secateur.search.warm_start import SCREENED, best_methods, method_damages


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
    assert best_methods(make_space(), trials) == {"channels": "by l1"}
    made = run(tmp_path, 30)
    kept = {t.label: (t.method, t.fraction) for t in study(tmp_path).trials() if t.label}
    assert kept["uniform 0.375 l2"] == ("l2", 0.375)
    assert kept["dense"] == (None, None)
    assert kept == {t.label: (t.method, t.fraction) for t in made.trials if t.label}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_through_a_whole_search(sampler, tmp_path, in_memory):
    assert run(tmp_path, 15, sampler=sampler).evaluated == 15


def test_two_studies_share_a_database_without_meeting(tmp_path):
    one = run(tmp_path, 15, name="one", sampler="tpe")
    two = run(tmp_path, 15, name="two", sampler="nsga2")
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
