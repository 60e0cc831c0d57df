"""Nights of a pipeline: a search, replays on new weights, what makes it search anew, and how a scheduler sees all that."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from safetensors.torch import save_file

from end_to_end.conftest import call, command, environment, make_project
from nets import network
from secateur.errors import StateError
from secateur.pipelines import retraining
from secateur.pipelines.listener import Listener
from tracking import tracking_at
from waiting import LIMIT, until

MODEL = """
from safetensors.torch import load_file
from nets import network
from tiny import make_workload

def workload(*, weights=None):
    model = network("residual")
    if weights is not None:
        model.load_state_dict(load_file(weights))
    return make_workload(model, 600)
"""
PIPELINE = """\
name: nightly
workload: my_model.py:workload
search_space:
  groups:
    - {methods: [l1], multiple_of: 4, at_least: 4, removed: [0.0, 0.6]}
evaluator: local
search: {trials: 4, seed: 1, fidelities: {training: []}}
recover: {epochs: 1, finalists: 1, batch: 32}
register: {name: nightly-model, gate: {margin: 0.9, slack: 9.0}, promote: auto}
"""
EVALUATOR = """\
objectives: {accuracy: maximize, macs: minimize}
constraints: {accuracy: {max_drop: 0.95}}
waiting: 0
"""


def make(folder):
    project = make_project(folder)
    (project / "my_model.py").write_text(MODEL)
    (project / "pipelines" / "nightly.yaml").write_text(PIPELINE)
    (project / "evaluators" / "local.yaml").write_text(EVALUATOR)
    return project


def last_line(done):
    return json.loads(done.stdout.splitlines()[-1])


def night(project, key, *options):
    done = call(project, "retrain", "nightly", "--run-key", key, "--result-file", "result.json", *options)
    result = json.loads((project / "result.json").read_text())
    assert result == last_line(done)
    assert result["exit_code"] == done.returncode
    return result, done


def record_of(project, result):
    return json.loads((project / "mlruns" / "runs" / result["run"] / "record.json").read_text())


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """A project, and its nights by their keys."""
    project = make(tmp_path_factory.mktemp("nights"))
    for number in (1, 2):
        changed = network("residual").state_dict()
        next(iter(changed.values())).mul_(1 + 0.01 * number)
        save_file({name: x.contiguous() for name, x in changed.items()}, project / f"{number}.safetensors")
    kept = {
        "first": night(project, "first"),
        "replayed": night(project, "replayed", "--weights", "1.safetensors"),
        "moved": night(project, "moved", "--weights", "2.safetensors", "--set", "retrain.moved=0"),
        "worse": night(project, "worse", "--weights", "1.safetensors", "--set", "register.gate.margin=0"),
    }
    return project, kept


def test_the_first_night_searches_and_promotes(nights):
    result, _ = nights[1]["first"]
    assert (result["status"], result["exit_code"], result["way"]) == ("promoted", 0, "search")
    assert result["why"] == "no version of 'nightly-model' is @champion yet"


def test_new_weights_get_the_choice_that_serves_without_a_search(nights):
    project, kept = nights
    (first, _), (result, _) = kept["first"], kept["replayed"]
    assert (result["status"], result["way"]) == ("promoted", "replay")
    assert 0 < result["profile_moved"] < 0.3
    before, now = record_of(project, first), record_of(project, result)
    assert [t["arm"] for t in now["trials"]] == ["prior"]
    chosen = {f["name"]: f["candidate"] for f in before["finalists"]}[before["knee"]]
    assert [f["candidate"] for f in now["finalists"]] == [chosen]
    assert now["definition"]["workload"]["weights"] == str(project / "1.safetensors") == result["weights"]


def test_a_replay_of_a_replay_knows_whose_search_it_rests_on(nights):
    project, kept = nights
    precedent = record_of(project, kept["moved"][0])["replay"]["precedent"]
    assert (precedent["run"], precedent["searched_in"]) == (kept["replayed"][0]["run"], kept["first"][0]["run"])


def test_a_profile_that_has_moved_leads_to_a_search_from_the_last_front(nights):
    project, kept = nights
    result, _ = kept["moved"]
    assert (result["status"], result["way"]) == ("promoted", "search")
    assert result["why"].startswith(f"the sensitivity profile has moved by {result['profile_moved']:.2f} since run")
    now = record_of(project, result)
    assert sum(t["arm"] == "prior" for t in now["trials"]) == len(now["replay"]["precedent"]["front"])
    assert "global" in {t["arm"] for t in now["trials"]}


def test_a_replay_that_fails_the_gate_leads_to_a_search_in_the_same_run(nights):
    project, kept = nights
    result, done = kept["worse"]
    assert (result["status"], done.returncode, result["way"]) == ("gate_failed", 4, "search")
    assert result["why"].startswith("the choice that serves fails the gate on the new weights: f1-")
    assert result["message"] in done.stderr
    now = record_of(project, result)
    assert now["trials"][0]["arm"] == "prior"
    assert len(now["trials"]) > 1
    assert now["comparison"]["version"] == "3"


def test_the_same_key_says_again_how_it_ended(nights):
    project, kept = nights
    before = sorted((project / "mlruns" / "runs").iterdir())
    for key, (result, _) in kept.items():
        again, done = night(project, key, "--weights", "is not even looked for")
        assert (again, done.returncode) == (result, result["exit_code"])
    assert sorted((project / "mlruns" / "runs").iterdir()) == before


def test_the_registry_has_one_champion_and_the_moves_that_led_to_it(nights):
    project, kept = nights
    with tracking_at(f"sqlite:///{project / 'mlruns' / 'mlflow.db'}"):
        import mlflow

        champion = mlflow.MlflowClient().get_model_version_by_alias("nightly-model", "champion")
    assert (champion.tags["secateur.run_key"], champion.tags["secateur.weights"]) == (
        "moved",
        str(project / "2.safetensors"),
    )
    assert (
        "of 'nightly-model' was tried first on the new weights: a search followed, since the sensitivity profile"
        in (champion.description)
    )
    assert champion.tags["secateur.run_id"] == kept["moved"][0]["run"], "what failed afterwards has changed nothing"
    moves = json.loads(call(project, "history", "nightly-model", "--json").stdout)
    assert [(m["action"], m["state"]) for m in moves] == [("gate", "done")] * 3


def test_what_is_wrong_is_said_in_the_last_line_too(nights):
    project, _ = nights
    result, done = night(project, "nothing", "--weights", "gone.safetensors")
    assert (result["status"], done.returncode) == ("definition_error", 2)
    assert "there are no weights" in result["message"]
    assert result["message"] in done.stderr


def test_a_definition_that_was_corrected_counts_for_the_night_that_it_ended(tmp_path):
    project = make(tmp_path)
    evaluator = project / "evaluators" / "local.yaml"
    evaluator.write_text(EVALUATOR.replace("}}", "}, macs: {at_most: 1}}"))
    result, done = night(project, "k")
    assert done.returncode == 2
    assert "no network of this search space has macs" in result["message"]
    evaluator.write_text(EVALUATOR)
    result, _ = night(project, "k")
    assert result["status"] == "promoted"


def test_a_search_that_a_deadline_leaves_no_time_is_not_said_to_have_found_nothing(tmp_path, monkeypatch):
    project = make(tmp_path)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(retraining, "_search_ends", lambda *_: 0.0)
    with pytest.raises(StateError, match="The deadline has left no time for a search"):
        retraining.retrain(retraining.Retraining("nightly", (), project, "k"), Listener())


def test_a_stop_from_outside_is_quick_and_the_same_command_goes_on(tmp_path):
    project = make(tmp_path / "project")
    long = ("retrain", "nightly", "--set", "recover.epochs=2000")
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen(command(*long), cwd=project, env=environment(), stdout=out, stderr=subprocess.STDOUT)
        until(lambda: [*project.glob("mlruns/runs/*/finalists/*/checkpoint.safetensors")], "a checkpoint", running)
        meanwhile = call(project, *long)
        running.send_signal(signal.SIGTERM)
        assert running.wait(LIMIT) == 75
    lines = [line for line in (tmp_path / "out").read_text().splitlines() if line.startswith("{")]
    result = json.loads(lines[-1])
    assert (result["status"], result["exit_code"]) == ("retry_later", 75)
    assert "SIGTERM" in result["message"]
    assert meanwhile.returncode == 75
    assert "is in use by process" in last_line(meanwhile)["message"]
    (run,) = project.glob("mlruns/runs/*")
    again = call(project, *long, "--deadline", "1s")
    assert (again.returncode, last_line(again)["status"]) == (75, "retry_later")
    assert "the deadline has passed" in last_line(again)["message"]
    assert [*project.glob("mlruns/runs/*")] == [run], "it is the same run that goes on"
