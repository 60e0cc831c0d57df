"""Real NNI experiments with a trivial trial: what they deliver, and what is left when something is killed."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from secateur.errors import DefinitionError, ExperimentBroken
from secateur.search.nni.experiment import Experiment
from secateur.search.nni.guardian import processes_of
from secateur.search.nni.settings import ExperimentSettings, RemoteMachine
from waiting import until

SPACE = {"x": {"_type": "uniform", "_value": [0.0, 1.0]}, "method": {"_type": "choice", "_value": ["l1", "l2"]}}

TRIAL = """
import os, sys, time
from secateur.search.nni import trial
values, number = trial.parameters(), int(os.environ["NNI_TRIAL_SEQ_ID"])
what = sys.argv[1]
if what == "sleep":
    time.sleep(600)
if what == "fail" and number == 1:
    raise ValueError("no channel is left")
if what == "fail" and number == 2:
    sys.exit(0)
if what == "fade" and number >= 1:
    for _ in range(600):
        trial.report(0.0, "hopeless")
        time.sleep(0.1)
for _ in range(3):
    trial.report(1.0, "well")
trial.finish(-abs(values["x"] - 0.3), f"{os.environ['HOME']} {values['x']!r} {values['method']}")
"""


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "trial.py").write_text(TRIAL)
    return folder


def experiment(tmp_path, code, what, trials, tuner="tpe", **changes):
    settings = ExperimentSettings(tuner, trials, tmp_path / "nni", **changes)
    return Experiment(settings, SPACE, ["trial.py", what], code)


def listening(folder):
    """Addresses on which the experiment's processes listen."""
    found = set()
    for pid in processes_of(folder):
        for connection in psutil.Process(pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip)
    return found


def test_a_local_experiment_ends_with_all_its_results(tmp_path, code):
    with experiment(tmp_path, code, "fail", 4, concurrency=4) as running:
        url = running.start()
        assert url.startswith("http://127.0.0.1:")
        assert listening(tmp_path / "nni") == {"127.0.0.1"}
        finished = {f.number: f for f in running.finished()}
        assert listening(tmp_path / "nni") == {"127.0.0.1"}
    assert sorted(finished) == [0, 1, 2, 3]
    assert finished[1].failure == "ValueError: no channel is left"
    assert finished[2].failure == "the trial ended well, but without a result"
    for number in (0, 3):
        x, method = finished[number].values["x"], finished[number].values["method"]
        assert finished[number].failure is None
        assert finished[number].result["default"] == pytest.approx(-abs(x - 0.3))
        assert finished[number].result["evaluation"] == f"{Path.home()} {x!r} {method}"
    assert processes_of(tmp_path / "nni") == []
    assert list((tmp_path / "nni").glob("*/db/nni.sqlite")), "its state lies in its folder"


def test_an_assessor_stops_a_hopeless_trial(tmp_path, code):
    with experiment(tmp_path, code, "fade", 2, tuner="evolution", assessor="medianstop") as running:
        running.start()
        finished = {f.number: f for f in running.finished()}
    assert [finished[n].stopped for n in range(2)] == [False, True]
    assert finished[1].result is None
    assert finished[1].failure is None


def test_a_dead_tuner_is_noticed_at_once(tmp_path, code):
    with experiment(tmp_path, code, "sleep", 3) as running:
        running.start()
        trials = running.finished()
        tuner = until(lambda: processes_of(tmp_path / "nni", "--exp_params"), "the tuner's process")
        until(lambda: processes_of(tmp_path / "nni", "trial.py"), "a trial")
        running._look()
        for pid in tuner:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ExperimentBroken, match="runs on without its tuner.*run the same command again") as caught:
            next(trials)
        assert processes_of(tmp_path / "nni", "trial.py"), "long before its trials are over"
        assert "dispatcher.log" in str(caught.value)
    assert processes_of(tmp_path / "nni") == []


def test_a_manager_that_cannot_start_says_why(tmp_path, code):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = experiment(tmp_path, code, "well", 1, port=port)
        with running, pytest.raises(ExperimentBroken, match=r"did not start(.|\n)*EADDRINUSE"):
            running.start()
    assert processes_of(tmp_path / "nni") == []


def words_of(process):
    """Its command line; none of one that has ended since it was found."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def remote_processes(identity):
    """Those of the keeper and the trials, which an ssh session started: they carry no mark of ours."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("NNI_EXP_ID") == identity or f"/{identity}/" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_trials_on_a_remote_host(tmp_path, code, host):
    with experiment(tmp_path, code, "well", 2, concurrency=2, remote=host) as running:
        running.start()
        finished = list(running.finished())
        keepers = [p for p in remote_processes(running.id) if "trial_keeper" in " ".join(words_of(p))]
        open_to = {c.laddr.ip for p in keepers for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert [f.failure for f in finished] == [None, None]
    assert all(str(tmp_path / "nni") not in f.result["evaluation"] for f in finished)
    assert open_to == {"127.0.0.1"}, "the keeper over there listens on loopback too"
    assert remote_processes(running.id) == []
    home = host.key_file.parent
    assert list((home / "nni-experiments").iterdir()) == [], "its files over there are gone"
    assert not (home / "pip.log").exists(), "nothing was installed"


def test_nothing_outlives_a_killed_manager_on_a_remote_host(tmp_path, code, host):
    with experiment(tmp_path, code, "sleep", 2, remote=host) as running:
        running.start()
        until(lambda: any("trial.py" in words_of(p) for p in remote_processes(running.id)), "a remote trial")
        for pid in processes_of(tmp_path / "nni", "main.js", "--experiment-id"):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ExperimentBroken, match="NNI's manager ended"):
            list(running.finished())
        assert remote_processes(running.id) == []


def test_a_host_whose_key_is_not_known_is_not_talked_to(tmp_path, code, host):
    host.known_hosts.write_text("")
    running = experiment(tmp_path, code, "well", 1, remote=host)
    with running, pytest.raises(DefinitionError, match=r"known_hosts has no key of \[127.0.0.1\]"):
        running.start()


def test_the_manager_itself_checks_the_key_too(tmp_path, code, host, monkeypatch):
    monkeypatch.setattr(RemoteMachine, "key_hashes", lambda _: ["c29tZWJvZHkgZWxzZQ=="])
    with experiment(tmp_path, code, "well", 1, remote=host) as running:
        running.start()
        with pytest.raises(ExperimentBroken, match="NNI's manager ended"):
            list(running.finished())
        assert "Host denied (verification failed)" in (running.logs / "nnimanager.log").read_text()
