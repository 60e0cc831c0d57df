"""What NNI's trials become in the ledger, with an experiment that only plays one."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import TypeAdapter

from invented import resolve
from secateur.compression.groups import FoundGroups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import StateError
from secateur.execution import Inline
from secateur.records import Evaluation, Goal, Group, Measurement, Member
from secateur.search.ledger import Ledger, Problem
from secateur.search.loop import PHASES_DONE, Stopping, search
from secateur.search.nni.engine import Arrangement, nni_space, score_in, search_by_nni, seen
from secateur.search.nni.experiment import Finished
from secateur.search.nni.settings import ExperimentSettings
from secateur.search.study import Study, Subject
from secateur.search_spaces import build_space

EVALUATION = TypeAdapter(Evaluation)
OBJECTIVES = {"accuracy": "maximize", "macs": "minimize"}


def make_space():
    members = (Member("x", "out", "batch norm", (), ()),)
    groups = tuple(Group(name, "Conv2d", members, 32, tuple(range(32)), 100, 100) for name in "ab")
    rules = {"groups": [{"methods": ["l1", "l2"], "multiple_of": 4, "removed": [0.0, 0.9]}]}
    return build_space(SearchSpaceDefinition.model_validate(rules), FoundGroups(groups, (), None))


SPACE = make_space()
PLENTY = Stopping(100)


def exact(plan):
    share = 1 - sum(len(step.indices) / 32 for step in plan.steps) / 2
    return {"macs": share, "parameters": 1000 * share, "nonzero": 1000 * share}


def evaluate(candidate, **changes):
    costs = exact(resolve(candidate))
    figures = {"accuracy": 0.9 - (1 - costs["macs"]) ** 2, "damage": 1 - costs["macs"], **costs}
    measured = {name: Measurement(value, "", "computed") for name, value in figures.items()}
    return Evaluation(candidate, resolve(candidate).key, measured, **changes)


@pytest.fixture
def ledger(tmp_path):
    return open_ledger(tmp_path)


def open_ledger(folder):
    study = Study(
        folder / "studies.db",
        "s",
        Subject(SPACE, OBJECTIVES, {}),
        "nni_tpe",
        0,
    )
    dense = evaluate(SPACE.dense()).measurements
    goals = (Goal("accuracy", "at_least", 0.5, 0.3, "accuracy at least 0.5"),)
    problem = Problem(SPACE, OBJECTIVES, resolve, exact, dense, goals, warm_starts=False, seed=7)
    return Ledger(problem, study)


class Played:
    """An experiment whose trials are given. started: with which settings and what was known."""

    trials: list[Finished]
    started: list[tuple]

    def __init__(self, settings, space, arguments, code_folder):
        self.settings, self.made_of, self.logs = settings, (space, arguments), code_folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped = True

    def start(self, known):
        self.started.append((self.settings, known))
        return "http://127.0.0.1:1"

    def finished(self):
        yield from self.trials


@pytest.fixture
def play(monkeypatch, tmp_path):
    def play(ledger, trials, stopping=PLENTY, clock=lambda: 0.0):
        played = type("Played_", (Played,), {"trials": trials, "started": []})
        monkeypatch.setattr("secateur.search.nni.engine.Experiment", played)
        urls = []
        arrangement = Arrangement(ExperimentSettings("tpe", None, tmp_path, seed=5), [], tmp_path, urls.append)
        played.ended = search_by_nni(ledger, arrangement, stopping, clock)
        played.urls = urls
        return played

    return play


def values(removed, method="l1"):
    return {"a.removed": removed, "a.method": method, "b.removed": 0.25, "b.method": "l2"}


def well(number, given, **changes):
    evaluation = evaluate(SPACE.candidate(given))
    sent = {"default": 0.0, "evaluation": EVALUATION.dump_json(evaluation).decode()}
    return Finished(f"t{number}", number, given, **({"result": sent} | changes))


def test_every_trial_is_told_with_its_evaluation_and_kept_in_the_study(ledger, play, tmp_path):
    given = [values(0.2), values(0.5, "l2"), values(0.74)]
    played = play(ledger, [well(i, v) for i, v in enumerate(given)])
    assert played.ended == "NNI's tuner has nothing more to try"
    assert played.urls == ["http://127.0.0.1:1"]
    assert [t.evaluation for t in ledger.trials] == [evaluate(SPACE.candidate(v)) for v in given]
    assert {t.arm for t in ledger.trials} == {"sampler"}
    assert [t.evaluation for t in open_ledger(tmp_path).trials] == [t.evaluation for t in ledger.trials]
    assert len(ledger.archive.values) > 1


def test_a_known_network_is_shared_and_costs_nothing(ledger, play):
    played = play(ledger, [well(0, values(0.25)), well(1, values(0.251)), well(2, values(0.5))], Stopping(2))
    assert [t.same_as for t in ledger.trials] == [None, 0, None]
    assert (ledger.evaluated, played.ended) == (2, "all trials are done")


def test_how_trials_without_a_result_are_told(ledger, play):
    part = {"default": -1.0, "evaluation": EVALUATION.dump_json(evaluate(SPACE.candidate(values(0.5)))).decode()}
    play(
        ledger,
        [
            well(0, values(0.1)),
            Finished("a", 1, values(0.3), failure="MemoryError: too wide"),
            Finished("b", 2, values(0.5), stopped=True, partial=part),
            Finished("c", 3, values(0.6), stopped=True),
            Finished("d", 4, values(0.7), result={"default": 0.0, "evaluation": "{}"}),
        ],
    )
    told = [t.evaluation for t in ledger.trials[1:]]
    assert told[0].failure == "MemoryError: too wide"
    assert told[1].stopped == "NNI's assessor stopped it: below the median after a part of the data"
    assert told[1].measurements == evaluate(SPACE.candidate(values(0.5))).measurements
    assert told[2].stopped == "NNI's assessor stopped it before it had reported anything"
    assert told[3].failure.startswith("the trial's result cannot be read: ")
    assert [e.candidate for e in told] == [SPACE.candidate(values(v)) for v in (0.3, 0.5, 0.6, 0.7)]
    assert ledger.evaluated == 4, "what was stopped without a figure is free"


def test_trials_that_cannot_even_start_end_the_run_and_leave_no_trace(ledger, play):
    failed = [Finished(str(i), i, values(i / 10), failure=f"no such module {i}") for i in range(4)]
    with pytest.raises(
        StateError, match="The first 3 trials of the NNI experiment .* the last one with: no such module 2"
    ):
        play(ledger, failed)
    assert ledger.trials == []
    play(ledger, [*failed[:2], well(2, values(0.5)), failed[3]])
    assert [t.evaluation.failure for t in ledger.trials] == [
        "no such module 0",
        "no such module 1",
        None,
        "no such module 3",
    ]


def test_patience_and_time_end_it_too(ledger, play):
    same = [well(0, values(0.5)), *(well(i, values(0.5 - i / 8)) for i in range(1, 5))]
    worse = [dataclasses.replace(t, result=None, failure="broke") for t in same[1:]]
    assert play(ledger, [same[0], *worse], Stopping(100, patience=2)).ended.startswith("2 networks in a row")
    assert len(ledger.trials) == 3
    ticks = iter([0.0, 5.0])
    played = play(ledger, [well(0, values(0.0)), well(1, values(0.1))], Stopping(100, seconds=5.0), lambda: next(ticks))
    assert (played.ended, len(ledger.trials)) == ("the time is up", 4)
    assert play(ledger, [well(0, values(0.7))], Stopping(4)).started == [], "nothing is left: no experiment"


def test_an_experiment_is_told_what_is_known_and_gets_another_seed(ledger, play):
    first = [well(0, values(0.2)), well(1, values(0.2)), Finished("x", 2, values(0.6), failure="broke")]
    assert play(ledger, first).started[0][1] == []
    ((settings, known),) = play(ledger, [well(0, values(0.4))]).started
    assert settings.seed == 5 + 3
    assert [SPACE.candidate(v) for v, _ in known] == [SPACE.candidate(values(0.2)), SPACE.candidate(values(0.6))]
    assert [score for _, score in known] == [score_in(ledger.problem, ledger.trials[i].evaluation) for i in (0, 2)]
    assert known[1][1] < known[0][1]
    names = {p.name for p in SPACE.parameters()}
    assert all(v.keys() == names for v, _ in known)


def test_the_space_in_nnis_words():
    assert nni_space(SPACE.parameters()) == {
        "a.removed": {"_type": "uniform", "_value": [0.0, 0.875]},
        "a.method": {"_type": "choice", "_value": ["l1", "l2"]},
        "b.removed": {"_type": "uniform", "_value": [0.0, 0.875]},
        "b.method": {"_type": "choice", "_value": ["l1", "l2"]},
    }


def test_the_start_phases_end_where_the_samplers_turn_would_begin(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.problem = dataclasses.replace(ledger.problem, warm_starts=True, saliencies=_saliencies())
    assert search(ledger, Inline(lambda job: evaluate(job.candidate)), Stopping(60), phases_only=True) == PHASES_DONE
    arms = [t.arm for t in ledger.trials]
    assert {"dense", "uniform", "random", "global", "knapsack"} <= set(arms)
    assert "sampler" not in arms
    assert seen(ledger)
    assert (
        search(ledger, Inline(lambda job: evaluate(job.candidate)), Stopping(2), phases_only=True)
        == "all trials are done"
    )


def _saliencies():
    import torch

    return {name: {m: torch.linspace(0, 1, 32) for m in ("l1", "l2")} for name in "ab"}
