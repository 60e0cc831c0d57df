"""A whole run on a board over ssh (an OpenSSH server on loopback), whose link is cut in the middle of the search."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from end_to_end.conftest import SEARCH_ALONE, call, command, environment, make_project
from link import link_to
from ssh_server import ssh_server
from waiting import LIMIT, until

TRIALS = 10
RUN = ("run", "tiny", "--set", f"search.trials={TRIALS}", *SEARCH_ALONE, "--set", "recover.finalists=2")
EVALUATOR = """\
objectives: {{accuracy: maximize, latency: minimize, size: minimize}}
constraints: {{accuracy: {{max_drop: 0.6, before_recovery: 0.25}}}}
waiting: 0
device:
  kind: ssh
  hosts: [root@127.0.0.1:{port}]
  key_file: ssh/user
  known_hosts: ssh/known_hosts
  python: {python}
  folder: {folder}
  connect_seconds: 2
  keepalive_seconds: 0.5
"""


@pytest.fixture
def board(tmp_path):
    """A project that measures over a link, and the link."""
    project = make_project(tmp_path / "project")
    with ssh_server(project / "ssh") as server, link_to(server.port) as link:
        kind, key, *_ = (server.folder / "host.pub").read_text().split()
        (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{link.port} {kind} {key}\n")
        text = EVALUATOR.format(port=link.port, python=sys.executable, folder=tmp_path / "board")
        (project / "evaluators" / "local.yaml").write_text(text)
        yield project, link


def record_of(project):
    (record,) = project.glob("mlruns/runs/*/record.json")
    return json.loads(record.read_text())


def measured(project):
    return len(list(project.glob("mlruns/measurements/*/*.json")))


def test_a_lost_device_suspends_the_search_and_no_trial_is_scored_without_it(board, tmp_path):
    project, link = board
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen(command(*RUN), cwd=project, env=environment(), stdout=out, stderr=out)
        until(lambda: measured(project) >= 2, "measurements (few networks are measured where forecasts hold)", running)
        link.cut()
        assert running.wait(LIMIT) == 75
    said = (tmp_path / "out").read_text()
    assert "root@127.0.0.1" in said
    assert "run the same command again" in said
    before = measured(project)
    again = call(project, *RUN)
    assert again.returncode == 75, "still away: nothing is begun"
    assert measured(project) == before
    link.restore()
    finished = call(project, *RUN)
    assert finished.returncode == 0, finished.stderr
    record = record_of(project)
    trials = [t for t in record["trials"] if t["same_as"] is None]
    assert len(trials) >= TRIALS
    assert all(t["evaluation"]["failure"] is None for t in trials)
    complete = [t["evaluation"]["measurements"]["latency"] for t in trials if t["evaluation"]["stopped"] is None]
    assert {m["provenance"] for m in complete} == {"measured"}
    assert [f["failure"] for f in record["finalists"]] == [None, None]
    assert {f["measurements"]["latency"]["device"] for f in record["finalists"]} == {record["device"]}
    assert len(list(project.glob("mlruns/runs/*"))) == 1, "it is the same run that went on"


def test_devices_and_models_alone(board, tmp_path):
    project, _ = board
    by_name = call(project, "device", "check", "evaluators/local.yaml")
    assert by_name.returncode == 0, by_name.stderr
    for words in ("root@127.0.0.1", "onnxruntime", "noise floor", "A/A test", "channels: it gets faster in steps of"):
        assert words in by_name.stdout
    for width in (8, 16):
        (tmp_path / f"{width}.onnx").write_bytes(small(width))
    found = call(
        project,
        "measure",
        str(tmp_path / "8.onnx"),
        "--against",
        str(tmp_path / "16.onnx"),
        "--device",
        "evaluators/local.yaml",
    )
    assert found.returncode == 0, found.stderr
    for words in ("ratio", "95 % interval", "samples/s", "p90 ms"):
        assert words in found.stdout
    refused = call(project, "measure", "my_model.py", "--device", "local")
    assert refused.returncode == 2
    assert "no ONNX model" in refused.stderr


def small(width):
    from unit.evaluators.devices.test_agent import perceptron

    return perceptron(width)
