"""The last line of `secateur retrain`, where there is hardly anything to say."""

from __future__ import annotations

import json
import signal

import pytest

from secateur.cli.commands import retraining
from secateur.cli.interrupts import Stop
from secateur.errors import StateError


def call(**options):
    retraining.retrain("no such pipeline", **options)


def last_line(capfd):
    return json.loads(capfd.readouterr().out.splitlines()[-1])


def test_a_result_file_that_cannot_be_written_is_said_in_the_last_line(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StateError, match="cannot be written"):
        call(result_file=tmp_path, run_key="k")
    said = last_line(capfd)
    assert (said["status"], said["exit_code"], said["run_key"]) == ("retry_later", 75, "k")
    assert "cannot be written" in said["message"]


def test_a_result_that_its_file_no_longer_takes_is_not_called_a_success(tmp_path, capfd):
    file = tmp_path / "folder" / "result.json"
    with pytest.raises(StateError), retraining._last_line("k", file) as result:
        result |= {"status": "promoted", "exit_code": 0, "run_key": "k"}
        file.mkdir()
    assert last_line(capfd)["exit_code"] == 75


def test_an_old_result_is_gone_before_the_work_begins(tmp_path):
    file = tmp_path / "result.json"
    file.write_text("of yesterday")
    with retraining._last_line(None, file) as result:
        assert not file.exists()
        result |= {"exit_code": 0}
    assert json.loads(file.read_text()) == {"exit_code": 0}


def test_a_stop_while_modules_are_imported_has_its_last_line(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("secateur.cli.commands.running.device_named", lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StateError, match="Stopped: SIGTERM"):
        call()
    assert last_line(capfd)["status"] == "retry_later"


def test_what_a_library_makes_of_a_stop_is_no_bug():
    with pytest.raises(StateError, match="Stopped: SIGTERM"), retraining._stopped(Stop("SIGTERM")):
        raise ImportError("a native module failed to import")
    with pytest.raises(ImportError), retraining._stopped(Stop()):
        raise ImportError
