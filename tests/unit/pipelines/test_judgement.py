"""From scores on disk to verdicts: the gate, test data that can only refuse, and who gets the alias."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from secateur.definition import ConstraintDefinition
from secateur.errors import EvaluationFailed
from secateur.evaluators.sample_scores import RESAMPLES, Scores, load_scores, save_scores
from secateur.pipelines import judgement
from secateur.pipelines.judgement import elect, judge, score_on_test, scores_file
from secateur.records import SHARE, Candidate, Measurement, Recovered
from secateur.registry import DENSE as DENSE_FOLDER

OBJECTIVES = {"accuracy": "maximize", "latency": "minimize"}
SAMPLES = 1000


def right(*wrong):
    """Everything right but these samples."""
    values = np.ones(SAMPLES)
    values[list(wrong)] = 0
    return Scores(SAMPLES, per_sample=True, values=values)


def figures(scores, latency):
    return {
        "accuracy": Measurement(scores.value, "score", "measured", SAMPLES, (scores.value - 0.02, scores.value + 0.02)),
        "latency": Measurement(latency, "of dense", "measured", 24, (latency - 0.01, latency + 0.01)),
        "macs": Measurement(1e6 * latency, "MACs", "computed"),
    }


DENSE = figures(right(*range(20)), 1.0)


class Evaluator:
    """Knows what every network scores on test data. looks: at which networks test data was used."""

    def __init__(self, on_test):
        self.on_test, self.looks = on_test, []
        self.files = SimpleNamespace(dense="dense")

    def dense_scores(self, role):  # noqa: ARG002 # the interface
        return right(*range(20))

    def score(self, network, role, names):  # noqa: ARG002 # the interface
        self.looks.append((network, role))
        found = self.on_test[network]
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(measurements=figures(found, 0.5), scores=found)

    def measure(self, network, role, names):  # noqa: ARG002 # the interface
        return DENSE


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Finalists by name: (latency, samples that they get wrong on selection data, on test data)."""

    def staged(**networks):
        monkeypatch.setattr(judgement, "network_of", lambda _p, finalist, _f: finalist.name)
        evaluator = Evaluator({name: test for name, (_, _, test) in networks.items()})
        definition = SimpleNamespace(
            evaluator=SimpleNamespace(
                objectives=OBJECTIVES, constraints={"accuracy": ConstraintDefinition.model_validate({"max_drop": 0.05})}
            ),
            recover=None,
        )
        prepared = SimpleNamespace(
            definition=definition,
            evaluator=evaluator,
            workload=SimpleNamespace(score_unit=SHARE),
            space=SimpleNamespace(dense=lambda: Candidate({})),
        )
        run = SimpleNamespace(
            path=tmp_path, folder=lambda name: (tmp_path / name).mkdir(exist_ok=True) or tmp_path / name
        )
        finalists = []
        for name, (latency, wrong, _) in networks.items():
            (tmp_path / name).mkdir()
            save_scores(wrong, scores_file(tmp_path / name, "selection"))
            searched = figures(wrong, latency)
            finalists.append(Recovered(name, 1, Candidate({}), searched, searched, name, 1, 1.0))
        return prepared, finalists, run

    return staged


def through(prepared, finalists, run):
    finalists, verdicts = judge(prepared, finalists, DENSE, run)
    passed = [f for f in finalists if f.name in verdicts and verdicts[f.name].passed]
    verdicts |= score_on_test(prepared, passed, verdicts, DENSE, run)
    return verdicts, elect(prepared, [f for f in passed if verdicts[f.name].veto is None], DENSE)


GOOD, BAD, LOST = right(*range(10, 40)), right(*range(200, 300)), right(*range(20), *range(300, 450))


def test_the_knee_of_what_passed_gets_the_alias(stage):
    prepared, finalists, run = stage(fast=(0.3, BAD, GOOD), knee=(0.5, GOOD, GOOD), slow=(0.9, GOOD, GOOD))
    found, best = through(prepared, finalists, run)
    assert best == "knee"
    assert not found["fast"].feasible
    assert "cannot be excluded" in found["fast"].checks[0].missed
    assert found["knee"].change.value == pytest.approx(-0.01)
    assert found["knee"].test_change.value == pytest.approx(-0.01)
    assert not found["slow"].on_front
    assert prepared.evaluator.looks == [("knee", "test")], "what did not pass is never looked at"
    assert load_scores(scores_file(run.path / "knee", "test")).value == GOOD.value


def test_test_data_refuses_the_knee_and_the_next_by_selection_data_gets_the_alias(stage):
    """Whose test score is not the better one: test data chooses nothing."""
    better_on_test = right()
    prepared, finalists, run = stage(
        knee=(0.3, GOOD, LOST), next=(0.5, right(*range(25)), GOOD), last=(0.7, right(*range(18)), better_on_test)
    )
    found, best = through(prepared, finalists, run)
    assert best == "next"
    assert found["knee"].veto.startswith("on test data -15.0 points")
    assert found["knee"].feasible, "it is registered, without the alias"
    assert found["next"].veto is None


def test_where_all_are_refused_there_is_no_alias(stage):
    failure = EvaluationFailed("the outputs are not finite")
    prepared, finalists, run = stage(one=(0.3, GOOD, LOST), two=(0.5, right(*range(22)), failure))
    found, best = through(prepared, finalists, run)
    assert best is None
    assert found["two"].veto == "it cannot be scored on test data: the outputs are not finite"


def test_a_failed_finalist_is_no_part_of_the_front(stage):
    prepared, finalists, run = stage(broken=(0.1, GOOD, GOOD), sound=(0.5, GOOD, GOOD))
    finalists[0] = replace(finalists[0], measurements={}, failure="it broke")
    found, best = through(prepared, finalists, run)
    assert best == "sound"
    assert [*found] == ["sound"]


def test_a_resumed_run_judges_by_the_scores_on_disk(stage):
    """And takes them again where a run was begun before scores were kept."""
    prepared, finalists, run = stage(one=(0.5, GOOD, BAD))
    first = judge(prepared, finalists, DENSE, run)
    assert prepared.evaluator.looks == []
    scores_file(run.path / "one", "selection").unlink()
    prepared.evaluator.on_test["one"] = GOOD
    assert judge(prepared, finalists, DENSE, run) == first
    assert prepared.evaluator.looks == [("one", "selection")]


def test_a_finalist_whose_change_is_not_known_fails_instead_of_ending_the_run(stage):
    """Its score is not finite on every resample: each resume would end at the same place."""
    prepared, finalists, run = stage(odd=(0.1, GOOD, GOOD))
    unknown = Scores(SAMPLES, per_sample=False, values=np.array([0.9] + [np.nan] * RESAMPLES))
    for name in ("odd", DENSE_FOLDER):
        save_scores(unknown, scores_file(run.folder(name), "selection"))
    (odd,), verdicts = judge(prepared, finalists, DENSE, run)
    assert odd.failure.startswith("it cannot be compared with the dense model: ")
    assert verdicts == {}


def test_test_data_on_which_the_change_is_not_known_refuses(stage):
    few = Scores(1, per_sample=True, values=np.array([0.5]))
    prepared, finalists, run = stage(one=(0.5, GOOD, few))
    found, best = through(prepared, finalists, run)
    assert best is None
    assert found["one"].veto == "it cannot be scored on test data: two networks were not scored on the same samples"


def test_scores_with_another_number_of_resamples_are_taken_again(stage):
    prepared, finalists, run = stage(one=(0.5, GOOD, GOOD))
    other = Scores(SAMPLES, per_sample=False, values=np.full(501, 0.9))
    save_scores(other, scores_file(run.path / "one", "selection"))
    judge(prepared, finalists, DENSE, run)
    assert load_scores(scores_file(run.path / "one", "selection")).per_sample
    assert prepared.evaluator.looks == [("one", "selection")]
