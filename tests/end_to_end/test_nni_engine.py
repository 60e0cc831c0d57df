"""`engine: nni` from the command line: driver, tuner and manager are killed in turn, and the same command ends the run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest

from end_to_end.conftest import SEARCH_ALONE, call, environment, make_project
from end_to_end.story import Story, kill, told
from secateur.search.nni.guardian import processes_of
from waiting import LIMIT, until

TRIALS = 16
"""The start phases take about twelve."""
RUN = (
    "run", "tiny", "--set", "search.engine=nni", "--set", "search.sampler=nni_tpe", "--set", f"search.trials={TRIALS}",
    "--set", "search.nni.assessor=medianstop", "--set", "recover.epochs=1", "--set", "recover.finalists=1", "--set", "workload.samples=1500",
)  # fmt: skip


def nnis(project):
    """How many trials of NNI's have been told."""
    return sum(arm == "sampler" for arm, _ in told(project).values())


def replayed(run):
    """Logs of the tuners that have been told what was known."""
    logs = (run / "nni").glob("*/log/dispatcher.log")
    return [log for log in logs if re.search(r"Replayed \d\d FINISHED trials", log.read_text())]


def left_over(project):
    """Processes that belong to a run of the project, by their command line or by the mark of their experiment."""
    runs = project / "mlruns" / "runs"
    found = {pid for run in runs.iterdir() for pid in processes_of(run / "nni")}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(runs) in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


class NniStory(Story):
    """Each act is over when no process of the run is left: the guardian of a killed driver lets the manager stop in good order."""

    def act(self, name, meanwhile=lambda _: None):
        super().act(name, meanwhile)
        until(lambda: not left_over(self.project), "the end of every process of the run")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    story = NniStory(make_project(tmp_path_factory.mktemp("project")), RUN)

    def kill_driver(process):
        until(lambda: nnis(story.project) >= 1, alive=process)
        kill(process)

    def kill_process(words):
        def found_and_killed(process):
            folder = story.run / "nni"
            until(
                lambda: len(replayed(story.run)) > len(story.acts), "a tuner that knows what was known", alive=process
            )
            until(lambda: processes_of(folder, "nni_trial") and processes_of(folder, words), alive=process)
            for pid in processes_of(folder, words):
                os.kill(pid, signal.SIGKILL)

        return found_and_killed

    story.act("driver", kill_driver)
    story.act("tuner", kill_process("--exp_params"))
    story.act("manager", kill_process("main.js"))
    story.act("nothing")
    return story


def test_the_last_start_ends_the_run_to_its_registration(story):
    assert story.acts["nothing"].code == 0, story.acts["nothing"].err
    assert "registered: tiny-model version 1" in story.acts["nothing"].out
    assert (story.run / "done").is_file()
    assert (story.run / "report.html").is_file()


def test_finished_trials_are_kept_and_none_is_counted_twice(story):
    acts = list(story.acts.values())
    assert nnis(story.project) > sum(arm == "sampler" for arm, _ in acts[0].kept.values()) >= 1
    for earlier, later in itertools.pairwise(acts):
        assert earlier.kept.items() <= later.kept.items()
    record = story.record
    own = [t["evaluation"] for t in record["trials"] if t["same_as"] is None]
    assert len({e["plan_key"] for e in own}) == len(own) == TRIALS
    assert [e["failure"] for e in own] == [None] * TRIALS, "no kill became a failure of a candidate"
    assert record["ended"] == "all trials are done"
    labels = [t["label"] for t in record["trials"] if t["label"]]
    assert len(labels) == len(set(labels)), "the start phases ran once"
    arms = [t["arm"] for t in record["trials"]]
    first = arms.index("sampler")
    assert set(arms[first:]) == {"sampler"}
    assert {"dense", "uniform", "random", "global", "knapsack"} <= set(arms[:first])


def test_what_nni_evaluated_is_what_a_worker_would_have(story):
    record = story.record
    mirrored = next(t["evaluation"] for t in record["trials"] if t["arm"] == "sampler" and t["same_as"] is None)
    planned = next(t["evaluation"] for t in record["trials"] if t["arm"] == "knapsack")
    assert mirrored["measurements"].keys() == planned["measurements"].keys()
    assert mirrored["measurements"]["latency"]["device"] == planned["measurements"]["latency"]["device"]
    assert mirrored["seconds"] > 0


def test_a_killed_tuner_or_manager_is_said_with_how_to_go_on(story):
    for name, words in (("tuner", "runs on without its tuner"), ("manager", "NNI's manager ended")):
        act = story.acts[name]
        assert act.code == 75
        assert words in act.err
        assert "run the same command again to go on" in act.err
        assert "Traceback" not in act.err.split("The end of")[0]


def test_no_process_outlives_any_end(story):
    assert left_over(story.project) == set()  # and after each act: `Story.act` waits for it


def test_every_experiment_is_told_what_was_known(story):
    assert len([*(story.run / "nni").glob("*/log/dispatcher.log")]) == len(replayed(story.run)) == len(story.acts)


def test_the_web_interface_is_named_once_a_start(story):
    for name in ("tuner", "manager", "nothing"):
        assert story.acts[name].err.count("NNI's experiment: http://127.0.0.1:") == 1


def test_a_first_part_was_reported_to_the_assessor(story):
    reported = []
    for database in (story.run / "nni").glob("*/db/nni.sqlite"):
        with contextlib.closing(sqlite3.connect(database)) as connection:
            reported += [
                json.loads(json.loads(d))
                for (d,) in connection.execute("select data from MetricData where type='PERIODICAL'")
            ]
    assert len(reported) >= nnis(story.project)
    part = json.loads(reported[0]["evaluation"])["measurements"]["accuracy"]
    whole = json.loads(json.loads(story.told()[0][1]))["measurements"]["accuracy"]
    assert 0 < part["samples"] < whole["samples"]


def test_a_sampler_of_the_other_engine_is_refused_before_anything_is_written(tmp_path):
    project = make_project(tmp_path)
    done = call(project, "run", "tiny", "--set", "search.engine=nni", "--set", "search.sampler=nsga2")
    assert done.returncode == 2
    assert "engine 'nni' takes nni_tpe, nni_evolution, nni_random" in done.stderr
    assert not list((project / "mlruns" / "runs").iterdir())


@pytest.fixture
def code(story, tmp_path):
    """What a trial is given, to be spoilt."""
    return shutil.copytree(story.run / "nni" / "code", tmp_path / "code")


def trial(code, *program):
    return subprocess.run(
        [sys.executable, *(program or ("-m", "secateur.pipelines.nni_trial")), str(code)],
        env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip


def test_a_trial_refuses_other_weights_than_the_runs(code):
    facts = json.loads((code / "run.json").read_text())
    (code / "run.json").write_text(json.dumps({**facts, "identity": "0123456789abcdef on a board"}))
    done = trial(code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"the weights that build_model gives now are not those that run {facts['run_id']} was started with."
    )


HANGS = """
import sys, time
from pathlib import Path
from secateur.pipelines import nni_trial
nni_trial.trial.parameters = lambda: {f"{name}": 0.5 for name in NAMES}
nni_trial.evaluation_of = lambda *_, **__: time.sleep(600)
nni_trial.evaluate(Path(sys.argv[1]))
"""


def test_a_trial_that_hangs_ends_with_the_reason(story, code):
    text = (code / "definition.yaml").read_text()
    assert "seconds: 600.0" in text
    (code / "definition.yaml").write_text(text.replace("seconds: 600.0", "seconds: 0.2"))
    groups = [g["name"] for g in story.record["groups"]]
    done = trial(code, "-c", HANGS.replace("NAMES", repr([f"{group}.removed" for group in groups])))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "it took longer than 0.2 s"


def test_trials_on_a_remote_host_are_told_like_any_others(tmp_path, host):
    project = make_project(tmp_path / "here")
    make_project(tmp_path / "there")
    remote = {
        "host": host.host, "port": host.port, "user": host.user, "key_file": str(host.key_file),
        "known_hosts": str(host.known_hosts), "python": host.python, "project": str(tmp_path / "there"),
    }  # fmt: skip
    done = call(
        project, "run", "tiny", "--set", "search.engine=nni", "--set", "search.sampler=nni_random",
        "--set", "search.trials=14", "--set", f"search.nni.remote={json.dumps(remote)}", *SEARCH_ALONE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (project / "mlruns" / "runs").iterdir()
    trials = json.loads((run / "record.json").read_text())["trials"]
    far = [t["evaluation"] for t in trials if t["arm"] == "sampler"]
    assert far
    assert [e["failure"] for e in far] == [None] * len(far)
    sent = sum(file.stat().st_size for file in (run / "nni" / "code").rglob("*"))
    assert sent < 2**20, "neither data nor weights travel"
    assert not (tmp_path / "there" / "mlruns").exists()
    assert left_over(project) == set()
