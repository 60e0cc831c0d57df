"""A project of a user's, small enough that a whole run takes some seconds, and the run of it that many tests look at."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import REPOSITORY

MODEL = """
from conftest import make_workload
from nets import network

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
search: {trials: 16, seed: 1}
recover: {epochs: 2, finalists: 2, batch: 32}
register: {name: tiny-model}
"""

EVALUATOR = """\
objectives: {accuracy: maximize, latency: minimize, size: minimize}
constraints: {accuracy: {max_drop: 0.6, before_recovery: 0.25}}
"""


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
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", **more}


def secateur(project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=project,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project after `secateur run tiny`."""
    project = make_project(tmp_path_factory.mktemp("project"))
    return project, secateur(project, "run", "tiny")


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture
def host(tmp_path):
    """An ssh server of our own on loopback, with its own key and ours; who logs in finds the project's source and tests."""
    from secateur.search.nni.settings import RemoteMachine  # an extra

    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    if sshd is None or os.geteuid() != 0:
        pytest.skip("needs sshd, and root to start it")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized_keys", "StrictModes": "no", "UsePAM": "no",
        "PasswordAuthentication": "no", "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp", "SetEnv": f"HOME={folder} PIP_LOG={folder}/pip.log PYTHONPATH={REPOSITORY}/src:{REPOSITORY}/tests",
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "config"], stderr=log)
    until(lambda: "listening" in (folder / "log").read_text(), 10, "the ssh server")
    yield RemoteMachine("127.0.0.1", "root", sys.executable, folder / "user", folder / "known_hosts", port)
    server.terminate()
    server.wait()
