from __future__ import annotations

import dataclasses
import json
import sqlite3
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

import finished
from secateur.cli.commands.running import _alone, _show
from secateur.errors import NothingBetter, StateError
from secateur.pipelines import finishing
from secateur.pipelines.listener import Listener
from secateur.pipelines.outcome import Outcome
from secateur.pipelines.state import RunFolder
from secateur.records import Version


def outcome(record=finished.RECORD):
    return Outcome(
        record, Path("run"), Path("run/report.html"), [Version("m", "3", ("candidate",), "id", "ab", "f1-aa")]
    )


def test_an_outcome_is_one_line_of_json_and_nothing_else_is_on_standard_output(capsys):
    with _alone(as_json=True):
        sys.stdout.write("what user code prints\n")
    _show(outcome(), as_json=True)
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    found = json.loads(line)
    assert (found["run"], found["best"], found["report"]) == ("r-1", "f1-aa", "run/report.html")
    assert [(f["name"], f["passed"]) for f in found["finalists"]] == [
        ("f1-aa", True),
        ("f2-bb", False),
        ("f3-cc", True),
    ]
    assert found["versions"][0]["aliases"] == ["candidate"]
    assert captured.err == "what user code prints\n"


def test_where_nothing_passed_the_outcome_is_printed_before_the_error(capsys):
    missed = {f.name: {"missed": "-9.0 points"} for f in finished.RECORD.finalists}
    nothing = finished.make(finished.RECORD.finalists, None, missed)
    with pytest.raises(NothingBetter, match="none of the 3 finalists keeps accuracy within 0.05 of the dense model"):
        _show(outcome(nothing), as_json=True)
    assert json.loads(capsys.readouterr().out)["best"] is None


def test_where_all_finalists_failed_the_error_says_why():
    reason = "The workload's loss raised ValueError: no (at my_model.py:3)"
    failed = [dataclasses.replace(f, failure=reason) for f in finished.RECORD.finalists]
    nothing = finished.make(failed, None)
    with pytest.raises(
        NothingBetter, match=r"front\. f1-aa, f2-bb, f3-cc failed: The .* \(at my_model.py:3\)\. The report"
    ):
        outcome(nothing).require_better()


def test_what_was_registered_once_is_not_sent_again_although_somebody_has_taken_it_back(tmp_path):
    run = RunFolder(tmp_path, "tiny", "tiny", "", str(tmp_path), "", "", {})
    (tmp_path / "registry.json").write_text("[]")
    (tmp_path / "done").touch()
    record = dataclasses.replace(finished.RECORD, definition={"register": {"name": "m"}})
    assert finishing.finish(run, record, Listener()).versions == []


def test_a_full_disk_under_the_studies_is_one_line_when_a_run_is_flushed_too(tmp_path, monkeypatch):
    def full(*_):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(finishing, "read_record", lambda _: None)
    monkeypatch.setattr(finishing, "finish", full)
    folder = tmp_path / "mlruns" / "runs" / "tiny"
    folder.mkdir(parents=True)
    with pytest.raises(StateError, match=r"studies.db cannot be used: database or disk is full"):
        finishing.finish_run(RunFolder(folder, "tiny", "tiny", "", str(tmp_path), "", "", {}))
