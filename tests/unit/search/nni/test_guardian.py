"""The guardian with harmless commands in the manager's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from secateur.search.nni import guardian
from waiting import LIMIT, until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*commands, afterwards=()):
        specification = tmp_path / "guarded.json"
        guarded = {
            "commands": commands, "folder": str(tmp_path), "log": str(tmp_path / "log"), "afterwards": afterwards,
        }  # fmt: skip
        specification.write_text(json.dumps(guarded))
        command = [sys.executable, "-I", guardian.__file__, str(specification)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        until(lambda: len(guardian.processes_of(tmp_path)) >= len(commands))
        return started[-1]

    yield start
    for process in started:
        process.stdin.close()
        process.wait(LIMIT)


def log(tmp_path):
    return (tmp_path / "log").read_text()


def test_everything_ends_with_the_driver(start, tmp_path):
    """The manager's own children as well: also those that have left its session."""
    process = start(["sleep", "60"], ["setsid", "sh", "-c", "sleep 60 & wait"])
    until(lambda: len(guardian.processes_of(tmp_path, "sleep 60")) >= 3)
    process.stdin.close()
    assert process.wait(LIMIT) == 0
    assert guardian.processes_of(tmp_path) == []
    assert "guardian: the driver ended" in log(tmp_path)


def test_a_driver_whose_pipe_someone_else_holds_open_is_missed_too(tmp_path):
    specification = tmp_path / "guarded.json"
    guarded = {"commands": [["sleep", "64"]], "folder": str(tmp_path), "log": str(tmp_path / "log")}
    specification.write_text(json.dumps(guarded))
    command = [sys.executable, "-I", guardian.__file__, str(specification)]
    reading, writing = os.pipe()
    try:
        script = f"import subprocess, time; subprocess.Popen({command!r}, stdin=0); time.sleep(60)"
        driver = subprocess.Popen([sys.executable, "-c", script], stdin=reading)
        until(lambda: guardian.processes_of(tmp_path))
        driver.kill()
        driver.wait()
        until(lambda: not guardian.processes_of(tmp_path))
    finally:
        os.close(reading)
        os.close(writing)


def test_everything_ends_with_the_first_command_that_does(start, tmp_path):
    process = start(["sleep", "61"], ["sleep", "62"], afterwards=[["touch", str(tmp_path / "cleaned")]])
    os.kill(guardian.processes_of(tmp_path, "sleep 61")[0], signal.SIGKILL)
    assert process.wait(LIMIT) == 0
    assert guardian.processes_of(tmp_path) == []
    assert "guardian: sleep ended with -9" in log(tmp_path)
    assert (tmp_path / "cleaned").exists()


def test_a_manager_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(guardian, "GRACE", 0.2)
    monkeypatch.setattr(guardian, "_first_end", lambda _: until(lambda: "up" in log(tmp_path) and "asked to"))
    guarded = guardian.Guarded([[sys.executable, "-c", STUBBORN]], str(tmp_path), str(tmp_path / "log"))
    assert guardian.guard(guarded) == "asked to"
    assert guardian.processes_of(tmp_path) == []


def test_only_marked_processes_are_found_and_killed(tmp_path):
    marked, other = (
        subprocess.Popen(["sleep", "63"], env={**os.environ, guardian.MARK: str(folder)})
        for folder in (tmp_path, tmp_path / "nni")
    )
    try:
        until(lambda: guardian.processes_of(tmp_path, "sleep"))
        assert guardian.processes_of(tmp_path) == [marked.pid]
        assert guardian.processes_of(tmp_path, "sleep", "64") == []
        assert guardian.kill_all(tmp_path) == []
        assert marked.wait(LIMIT) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()
