"""What an experiment makes of the manager's answers, without a manager."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from secateur.errors import DefinitionError, ExperimentBroken
from secateur.search.nni import trial
from secateur.search.nni.experiment import Experiment, Finished
from secateur.search.nni.names import BROKEN, TUNERS
from secateur.search.nni.settings import ExperimentSettings, RemoteMachine, configuration, trial_command

SPACE = {"x": {"_type": "uniform", "_value": [0, 1]}}


def settings(tmp_path, tuner="tpe", **changes):
    return ExperimentSettings(tuner, 3, tmp_path, **changes)


@pytest.mark.parametrize("tuner", BROKEN)
def test_tuners_that_do_not_work_are_refused_with_the_reason(tuner, tmp_path):
    with pytest.raises(DefinitionError, match=f"'{tuner}' cannot be used: {BROKEN[tuner]}. Working: tpe, evolution"):
        settings(tmp_path, tuner)


def test_misspelt_names_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(DefinitionError, match="unknown NNI tuner 'tpee'. Did you mean 'tpe'"):
        settings(tmp_path, "tpee")
    with pytest.raises(DefinitionError, match="unknown NNI assessor 'median'. Did you mean 'medianstop'"):
        settings(tmp_path, assessor="median")


@pytest.mark.parametrize("tuner", TUNERS)
def test_nni_itself_accepts_every_configuration(tuner, tmp_path):
    chosen = settings(tmp_path, tuner, concurrency=2, seed=5, assessor="medianstop")
    document = configuration(chosen, SPACE, "exec true", tmp_path)
    assert document["maxTrialNumber"] == 3
    assert document["trialConcurrency"] == 2
    assert document["tuner"]["classArgs"].get("seed", 5) == 5
    assert document["assessor"]["name"] == "Medianstop"
    assert document["trainingService"]["platform"] == "local"


def test_a_trial_is_one_process_with_an_absolute_interpreter(tmp_path):
    command = trial_command(settings(tmp_path, environment={"A": "b c"}), ["run.py", "x y"], "home")
    assert shlex.split(command) == ["exec", "env", "A=b c", "HOME=home", sys.executable, "run.py", "x y"]


def test_a_remote_trial_runs_with_the_interpreter_over_there(tmp_path):
    key = tmp_path / "key"
    key.touch()
    machine = RemoteMachine("board", "me", "/opt/venv/bin/python", key, tmp_path / "known_hosts")
    chosen = settings(tmp_path, remote=machine)
    command = trial_command(chosen, ["run.py"], "home")
    assert shlex.split(command) == ["exec", "env", "/opt/venv/bin/python", "run.py"]
    service = configuration(chosen, SPACE, command, tmp_path)["trainingService"]
    assert service["reuseMode"] is False
    assert service["nniManagerIp"] == "127.0.0.1"
    assert service["machineList"][0]["pythonPath"] == "/opt/venv/bin"


def job(identity, number, status, final=None, value=None):
    made = {
        "trialJobId": identity,
        "sequenceId": number,
        "status": status,
        "hyperParameters": [json.dumps({"parameter_id": number, "parameters": {"x": number / 10}})],
    }
    if final is not None:
        made["finalMetricData"] = [{"parameterId": str(final), "data": json.dumps(json.dumps(value))}]
    return made


class Answers:
    """The manager's answers: statuses and trials in turn, the last ones for ever."""

    def __init__(self, *answers, stderr="", metrics=None):
        self.answers, self.stderr, self.metrics, self.turn = answers, stderr, metrics or {}, 0

    def get(self, path):
        status, trials = self.answers[min(self.turn, len(self.answers) - 1)]
        if path == "trial-jobs":
            self.turn += 1
            return trials
        if path.startswith("metric-data/"):
            return self.metrics.get(path.removeprefix("metric-data/").removesuffix("?type=PERIODICAL"), [])
        return {"status": status, "errors": ["it broke"] if status == "ERROR" else []}

    def text(self, path):
        assert path.endswith("/stderr")
        return self.stderr


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    made = Experiment(settings(tmp_path), SPACE, ["run.py"], tmp_path)
    made.logs.mkdir(parents=True)
    (made.logs / "nnimanager.log").write_text('INFO cancelTrialJob: "d"\nINFO User cancelTrialJob: mine\n')
    monkeypatch.setattr(made, "_check_guardian", lambda _: None)
    monkeypatch.setattr("secateur.search.nni.guardian.processes_of", lambda *_: [1])
    monkeypatch.setattr("secateur.search.nni.experiment.POLL", 0.0)
    return made


def test_every_trial_is_told_once_as_it_ends_until_done(experiment):
    first, second = job("a", 0, "SUCCEEDED", 0, {"default": 1.0}), job("b", 1, "SUCCEEDED", 1, {"default": 2.0})
    experiment._rest = Answers(
        ("RUNNING", []),
        ("RUNNING", [job("a", 0, "RUNNING")]),
        ("RUNNING", [first, job("b", 1, "WAITING")]),
        ("NO_MORE_TRIAL", [first, job("b", 1, "RUNNING")]),
        ("NO_MORE_TRIAL", [first, second]),
        ("DONE", [first, second]),
    )
    assert list(experiment.finished()) == [
        Finished("a", 0, {"x": 0.0}, {"default": 1.0}),
        Finished("b", 1, {"x": 0.1}, {"default": 2.0}),
    ]


def test_a_result_goes_with_the_parameters_that_it_names(experiment):
    """NNI gives waiting parameters to whichever trial asks first."""
    trials = [job("a", 0, "SUCCEEDED", 1, {"default": 0.1}), job("b", 1, "SUCCEEDED", 0, {"default": 0.0})]
    experiment._rest = Answers(("DONE", trials))
    assert [(f.id, f.values["x"], f.result["default"]) for f in experiment.finished()] == [
        ("a", 0.1, 0.1),
        ("b", 0.0, 0.0),
    ]


def test_how_trials_end_without_a_result(experiment, monkeypatch):
    monkeypatch.setattr("secateur.search.nni.experiment.LATE", 0.0)
    statuses = {
        "a": "SUCCEEDED",
        "b": "FAILED",
        "c": "EARLY_STOPPED",
        "d": "USER_CANCELED",
        "mine": "USER_CANCELED",
        "e": "USER_CANCELED",
    }
    trials = [job(identity, i, status) for i, (identity, status) in enumerate(statuses.items())]
    experiment._rest = Answers(("DONE", trials), stderr="Traceback\n  …\nMemoryError: too wide\n")
    assert {f.id: f.failure or f.stopped for f in experiment.finished()} == {
        "a": "the trial ended well, but without a result",
        "b": "MemoryError: too wide",
        "c": True,
        "d": True,
        "mine": "the trial was cancelled in the web interface",
        "e": "the trial was lost with its host",
    }


def test_what_a_stopped_trial_had_reported_last_is_kept_with_the_parameters_that_it_names(experiment):
    trials = [job("a", 0, "EARLY_STOPPED"), job("b", 1, "RUNNING")]
    reports = [
        {"sequence": number, "parameterId": "1", "data": json.dumps(json.dumps({"default": number}))}
        for number in (0, 2, 1)
    ]
    experiment._rest = Answers(("RUNNING", trials), ("DONE", trials[:1]), metrics={"a": reports})
    assert list(experiment.finished()) == [Finished("a", 0, {"x": 0.1}, stopped=True, partial={"default": 2})]


def test_a_result_that_comes_late_is_waited_for(experiment):
    late = job("a", 0, "SUCCEEDED", 0, {"default": 1.0})
    experiment._rest = Answers(("DONE", [job("a", 0, "SUCCEEDED")]), ("DONE", [late]))
    assert [f.result for f in experiment.finished()] == [{"default": 1.0}]


def test_a_tuner_that_ran_out_of_points_ends_the_experiment(experiment):
    experiment._rest = Answers(("TUNER_NO_MORE_TRIAL", [job("a", 0, "SUCCEEDED", 0, {"default": 1.0})]))
    assert len(list(experiment.finished())) == 1


def test_an_error_of_the_manager_is_one(experiment):
    experiment._rest = Answers(("ERROR", []))
    with pytest.raises(ExperimentBroken, match="reports: it broke. What had finished is kept"):
        list(experiment.finished())


def test_a_tuner_that_lives_but_has_failed_is_dead(experiment):
    """NNI's dispatcher survives an error of its tuner and never answers again."""
    (experiment.logs / "dispatcher.log").write_text("ERROR\nTraceback (most recent call last):\nKeyError: 'x'\n")
    experiment._rest = Answers(("RUNNING", []))
    with pytest.raises(ExperimentBroken, match=r"without its tuner(.|\n)*KeyError: 'x'"):
        list(experiment.finished())


def test_a_manager_that_stays_silent_is_broken(experiment, monkeypatch):
    class Silent:
        def get(self, _path):
            raise TimeoutError("timed out")

    experiment._rest = Silent()
    monkeypatch.setattr("secateur.search.nni.experiment.SILENCE", -1.0)
    with pytest.raises(ExperimentBroken, match="has not answered for"):
        list(experiment.finished())


def test_it_must_be_started(tmp_path):
    made = Experiment(settings(tmp_path), SPACE, ["run.py"], tmp_path)
    with made, pytest.raises(RuntimeError, match="has not been started"):
        next(made.finished())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_that_would_end_the_tuner_is_refused(value):
    with pytest.raises(ValueError, match="must be a finite number"):
        trial.finish(value, "")
