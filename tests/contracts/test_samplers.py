"""What every sampler promises. A new one passes by being in the registry."""

from __future__ import annotations

import pytest

from secateur.records import Candidate, Evaluation, Measurement
from secateur.search.dashboard import Original
from secateur.search.samplers import SAMPLERS
from secateur.search.study import Study
from secateur.search_spaces import Parameter

PARAMETERS = [
    Parameter("a.removed", 0.0, 0.75),
    Parameter("a.method", names=("l1", "l2")),
    Parameter("b.removed", 0.1, 0.5),
]
OBJECTIVES = {"accuracy": "maximize", "size": "minimize"}

pytestmark = pytest.mark.parametrize("sampler", SAMPLERS)


def open_study(folder, sampler, seed=3, name="s"):
    return Study(folder / f"{name}.db", name, PARAMETERS, OBJECTIVES, sampler, seed, Original({}, {}, ()))


def judged(values) -> Evaluation:
    accuracy = 1 - values["a.removed"] ** 2 - values["b.removed"] * (0.5 if values["a.method"] == "l1" else 0.3)
    figures = {"accuracy": accuracy, "size": 2 - values["a.removed"] - values["b.removed"]}
    return Evaluation(Candidate({}), "", {n: Measurement(v, "", "computed") for n, v in figures.items()})


def drive(study, count, failing=(), infeasible=(), rejected=()):
    asked = []
    for i in range(count):
        trial = study.ask()
        asked.append(dict(trial.values))
        evaluation = judged(trial.values)
        if i in failing:
            evaluation = Evaluation(evaluation.candidate, "", {}, "broke")
        if i in rejected:
            evaluation = Evaluation(evaluation.candidate, "", {}, stopped="too large")
        study.tell(trial, evaluation, {"accuracy": 1.0 if i in infeasible or i in rejected else -1.0})
    return asked


def test_values_lie_within_their_parameters(sampler, tmp_path):
    for values in drive(open_study(tmp_path, sampler), 16):
        assert 0.0 <= values["a.removed"] <= 0.75
        assert 0.1 <= values["b.removed"] <= 0.5
        assert values["a.method"] in ("l1", "l2")


def test_the_same_seed_asks_the_same(sampler, tmp_path):
    runs = [drive(open_study(tmp_path, sampler, name=f"s{i}"), 15) for i in range(2)]
    assert runs[0] == runs[1]


def test_another_seed_asks_otherwise(sampler, tmp_path):
    assert drive(open_study(tmp_path, sampler, name="x", seed=1), 5) != drive(
        open_study(tmp_path, sampler, name="y", seed=2), 5
    )


def test_a_reopened_study_goes_on_and_does_not_repeat_its_first_asks(sampler, tmp_path):
    first = drive(open_study(tmp_path, sampler), 12)
    again = open_study(tmp_path, sampler)
    assert len(again.trials()) == 12
    second = drive(again, 12)
    assert not [values for values in second[:8] if values in first], (
        "a genetic sampler may cross two parents into one of them later"
    )


def test_failed_infeasible_and_rejected_trials_do_not_stop_it(sampler, tmp_path):
    study = open_study(tmp_path, sampler)
    drive(study, 28, failing=range(0, 28, 4), infeasible=range(1, 28, 4), rejected=range(2, 28, 4))
    trials = study.trials()
    assert sum(t.evaluation.failure is not None for t in trials) == 7
    assert sum(t.evaluation.stopped is not None for t in trials) == 7
    drive(study, 5)
    drive(open_study(tmp_path, sampler), 5)


def test_a_study_that_has_seen_only_failures_goes_on(sampler, tmp_path):
    study = open_study(tmp_path, sampler)
    drive(study, 14, failing=range(14))
    drive(study, 3)


def test_several_trials_may_be_under_way_and_end_in_any_order(sampler, tmp_path):
    study = open_study(tmp_path, sampler)
    drive(study, 12)
    asked = [study.ask() for _ in range(4)]
    assert len({tuple(a.values.items()) for a in asked}) == 4
    told = [study.tell(a, judged(a.values), {"accuracy": -1.0}) for a in reversed(asked)]
    assert [t.number for t in told] == [12, 13, 14, 15]
    stored = open_study(tmp_path, sampler).trials()
    assert [t.evaluation for t in stored[12:]] == [t.evaluation for t in told]


def test_given_numbers_are_asked_as_they_are(sampler, tmp_path):
    study = open_study(tmp_path, sampler)
    wanted = {"a.removed": 0.5, "a.method": "l2", "b.removed": 0.2}
    asked = study.ask(wanted, "uniform", "mine")
    assert (asked.values, asked.arm, asked.label) == (wanted, "uniform", "mine")
    study.tell(asked, judged(asked.values), {})
    (stored,) = open_study(tmp_path, sampler).trials()
    assert (stored.arm, stored.label, stored.evaluation) == ("uniform", "mine", judged(wanted))


def test_what_was_under_way_leaves_no_trace(sampler, tmp_path):
    study = open_study(tmp_path, sampler)
    drive(study, 3)
    study.ask()
    assert len(open_study(tmp_path, sampler).trials()) == 3
