"""Rungs between search and recovery, with an executor that trains nothing and knows how well each network would be trained."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from conftest import make_workload
from invented import narrowed, resolve
from secateur.definition import FidelitiesDefinition, RecoverDefinition
from secateur.pipelines.rungs import Rungs, share_of_rungs
from secateur.records import Evaluation, Measurement, Trial

OBJECTIVES = {"accuracy": "maximize", "latency": "minimize"}


def figures(accuracy, latency=None):
    found = {"accuracy": Measurement(accuracy, "score", "measured")}
    return found | ({} if latency is None else {"latency": Measurement(latency, "of dense", "measured")})


def trial(number, accuracy, latency):
    candidate = narrowed({"a": number})
    return Trial(number, "sampler", "", Evaluation(candidate, str(number), figures(accuracy, latency)), None)


TRIALS = [trial(n, 0.5 + 0.01 * n, 0.2 + 0.02 * n) for n in range(1, 21)]
"""All on the front: each is slower than the one before it and scores more."""


class Trains:
    """An executor. after: trial number → what it scores after training; None for one that fails."""

    workers = 2

    def __init__(self, after):
        self.after, self.jobs, self.queue = after, [], []

    def submit(self, number, job):
        assert len(self.queue) < self.workers
        self.jobs.append(job)
        self.queue.append((number, job))

    def wait(self):
        number, job = self.queue.pop()
        score = self.after[job.candidate.width("a", 0)]
        failure = "the loss became nan" if score is None else None
        return number, Evaluation(job.candidate, "", {} if score is None else figures(score), failure)


@pytest.fixture
def rungs(tmp_path):
    def made(after, *, finalists=2, recover=True, **settings):
        workload = make_workload(samples=600)
        recipe = RecoverDefinition(epochs=10, finalists=finalists, batch=8) if recover else None
        definition = SimpleNamespace(
            recover=recipe,
            search=SimpleNamespace(fidelities=FidelitiesDefinition(**settings)),
            evaluator=SimpleNamespace(objectives=OBJECTIVES, constraints={}),
        )
        prepared = SimpleNamespace(definition=definition, workload=workload)
        problem = SimpleNamespace(dense=figures(0.9, 1.0), resolve=resolve)
        executor = Trains(after)
        said = []
        run = SimpleNamespace(path=tmp_path)
        return Rungs(prepared, problem, executor, run, said.append), executor, said

    return made


def test_finalists_are_those_that_are_best_after_a_little_training(rungs):
    """Two that the search scores least gain most: they dominate all others after training."""
    after = {t.number: 0.4 for t in TRIALS} | {1: 0.8, 2: 0.9}
    chosen, said = rungs(after, keep=2)[0].finalists(TRIALS)
    assert {t.number for t in chosen} <= set(said[0].scores)
    assert [len(rung.scores) for rung in said] == [8, 4]
    assert [len(rung.passed) for rung in said] == [4, 2]
    assert said[1].scores.keys() == set(said[0].passed)
    assert tuple(t.number for t in chosen) == said[1].passed
    reached = {n for n in (1, 2) if n in said[0].scores}
    assert reached
    assert reached <= set(said[1].passed)


def test_a_finalist_has_the_figures_of_the_search_and_a_rung_takes_only_the_score_anew(rungs):
    chosen, said = rungs({t.number: 0.9 - 0.01 * t.number for t in TRIALS})[0].finalists(TRIALS)
    assert chosen == [t for c in chosen for t in TRIALS if t.number == c.number]
    fastest = sorted(said[0].scores)
    assert said[0].passed == tuple(fastest[:4]), "what is faster also scores more there, and dominates the next"
    assert said[1].passed == tuple(fastest[:2])


def test_the_length_of_a_rung_is_a_share_of_a_finalists_training(rungs):
    made, executor, said = rungs({t.number: 0.6 for t in TRIALS}, training=(0.02, 0.1))
    made.finalists(TRIALS)
    whole = 10 * (len(made.prepared.workload.data.train) // 8)
    first, second = round(0.02 * whole), round(0.1 * whole)
    assert [job.fidelity.steps for job in executor.jobs] == [first] * 8 + [second] * 4
    assert said == [f"8 networks, {first} training steps", f"4 networks, {second} training steps"]
    assert share_of_rungs(FidelitiesDefinition(training=(0.02, 0.1), keep=3)) == pytest.approx(9 * 0.02 + 3 * 0.1)
    assert share_of_rungs(FidelitiesDefinition()) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "trials"),
    [({"training": ()}, TRIALS), ({"recover": False}, TRIALS), ({"finalists": 20}, TRIALS)],
    ids=["switched off", "no training", "no more candidates than places"],
)
def test_where_there_is_nothing_to_choose_nothing_is_trained(rungs, settings, trials):
    made, executor, _ = rungs({}, **settings)
    chosen, said = made.finalists(trials)
    assert chosen
    assert (said, executor.jobs) == ((), [])


def test_a_rung_with_room_for_all_is_left_out(rungs):
    made, executor, _ = rungs({t.number: 0.6 for t in TRIALS})
    _, said = made.finalists(TRIALS[:4])
    assert [len(rung.scores) for rung in said] == [4]
    assert len({job.fidelity.steps for job in executor.jobs}) == 1


def test_what_fails_on_a_rung_is_no_finalist_and_the_others_go_on(rungs):
    after = {t.number: 0.6 + 0.01 * t.number for t in TRIALS} | {20: None}
    chosen, said = rungs(after)[0].finalists(TRIALS)
    assert 20 not in said[0].scores
    assert len(chosen) == 2


def test_what_a_killed_run_has_trained_is_not_trained_again(rungs):
    after = {t.number: 0.6 + 0.01 * t.number for t in TRIALS}
    first = rungs(after)[0].finalists(TRIALS)
    again, executor, _ = rungs({})
    assert again.finalists(TRIALS) == first
    assert executor.jobs == []


def test_candidates_outside_the_limits_are_not_looked_at(rungs):
    failed = replace(TRIALS[-1], evaluation=replace(TRIALS[-1].evaluation, stopped="hopeless"))
    dense = replace(TRIALS[-2], arm="dense")
    made, executor, _ = rungs({t.number: 0.6 for t in TRIALS}, finalists=8)
    made.finalists([*TRIALS[:-2], dense, failed])
    assert {job.candidate.width("a", 0) for job in executor.jobs} == set(range(1, 19))
