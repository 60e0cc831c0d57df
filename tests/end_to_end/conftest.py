"""A project of a user's, small enough that a whole run takes some seconds, and the run of it that many tests look at."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, of_all_processes
from secateur.cli import main
from ssh_server import ssh_server
from waiting import LIMIT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever starts whole runs is slow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


MODEL = """
from nets import network
from tiny import make_workload

def workload(*, samples: int = 600):
    return make_workload(network("residual"), samples)
"""

PIPELINE = """\
name: tiny
workload: my_model.py:workload
search_space:
  groups:
    - {methods: [l1, next_layer], multiple_of: 4, at_least: 4, removed: [0.0, 0.6]}
evaluator: local
search: {trials: 16, seed: 1, fidelities: {training: []}}
recover: {epochs: 2, finalists: 2, batch: 32}
register: {name: tiny-model}
"""

EVALUATOR = """\
objectives: {accuracy: maximize, latency: minimize, size: minimize}
constraints: {accuracy: {max_drop: 0.6, before_recovery: 0.25}}
waiting: 0  # beside other tests no machine is quiet
"""


SEARCH_ALONE = ("--set", "recover.finalists=1", "--set", "recover.epochs=1", "--set", "register=null")
"""For what shows in the search: as little as can follow it. (`recover=null` would export the whole front.)"""


def make_project(folder: Path) -> Path:
    for name, text in (
        ("my_model.py", MODEL),
        ("pipelines/tiny.yaml", PIPELINE),
        ("evaluators/local.yaml", EVALUATOR),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def command(*arguments: str) -> list[str]:
    """The command line in a process of its own, as a user starts it; warnings of ours would end it."""
    return [
        sys.executable,
        "-W",
        "error::UserWarning:secateur",
        "-c",
        "from secateur.cli import main; main()",
        *arguments,
    ]


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(REPOSITORY / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    inherited = {
        k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"
    }  # mlflow sets it in this very process
    return {**inherited, "PYTHONPATH": paths, "COLUMNS": "200", **more}


def secateur(project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=project,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT * 5,
    )


def call(project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has loaded what a new one takes seconds to load: for what is about the command alone."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, value in environment(**more).items():
            patch.setenv(name, value)
        patch.chdir(project)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "argv", ["secateur", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    return subprocess.CompletedProcess(arguments, end.value.code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def serving(project):
    """The address that `secateur dashboard` prints; it is ended with SIGTERM, as in a container, and that must be quiet and clean."""
    server = subprocess.Popen(
        command("dashboard", "--port", "0"),
        cwd=project, env=environment(PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = server.stdout.readline()
        printed = re.match(r"(http://127\.0\.0\.1:\d+/dashboard)  \(Ctrl-C ends it\)", line)
        assert printed, (line, server.poll())
        yield printed.group(1)
    finally:
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=LIMIT)
    assert (server.returncode, out, err) == (0, "", "")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project after `secateur run tiny`, and what that said. The test processes of a session share it."""
    session = of_all_processes(tmp_path_factory)
    project, said = session / "finished", session / "finished.json"
    with (session / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.is_file():
            done = secateur(make_project(project), "run", "tiny")
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return project, subprocess.CompletedProcess(("run", "tiny"), *json.loads(said.read_text()))


@pytest.fixture
def host(tmp_path):
    """A host for NNI's trials: who logs in finds the project's source and tests."""
    from secateur.search.nni.settings import RemoteMachine  # an extra

    folder = tmp_path / "ssh"
    paths = f"{REPOSITORY}/src:{REPOSITORY}/tests"
    with ssh_server(folder, PIP_LOG=f"{folder}/pip.log", PYTHONPATH=paths) as server:
        yield RemoteMachine("127.0.0.1", "root", sys.executable, folder / "user", folder / "known_hosts", server.port)
