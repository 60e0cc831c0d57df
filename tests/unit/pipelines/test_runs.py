"""Runs compared and deleted."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import pytest

import finished
from invented import make_space
from secateur.errors import DefinitionError, StateError
from secateur.pipelines.comparison import compare
from secateur.pipelines.deletion import delete_run
from secateur.pipelines.reading import read_record
from secateur.pipelines.state import DATABASE, RunFolder, find_run, locked, read_run, runs
from secateur.records import Candidate, Evaluation, Measurement
from secateur.search.board import ARTIFACTS
from secateur.search.storage import open_storage
from secateur.search.study import Study, Subject


def test_a_comparison_has_the_best_finalists_and_what_differs():
    other = replace(finished.RECORD, run_id="r-2", knee=None, definition={"name": "x", "search": {"seed": 4}})
    found = compare([finished.RECORD, other])
    assert found.runs == ("r-1", "r-2")
    assert found.rows["best finalist"] == ("f1-aa", None)
    assert found.rows["accuracy"] == (0.88, None)
    assert found.rows["latency, 95 %"][0] == pytest.approx((0.39, 0.41))
    assert {key: value for key, value in found.rows.items() if key.startswith("definition")} == {
        "definition: search.seed": (3, 4)
    }
    assert found.warnings == ()
    assert "macs" not in found.rows
    assert compare([finished.RECORD, other], ["macs"]).rows["macs"] == (4e6, None)


def test_parts_of_a_stage_count_once():
    parts = replace(finished.RECORD, seconds={"search": 3.0, "recover": 10.0, "recover.training": 8.0})
    assert compare([finished.RECORD, parts]).rows["seconds"] == (3.0, 13.0)


def test_what_does_not_compare_is_said():
    found = compare([finished.RECORD, replace(finished.RECORD, device="another", score_name="F1")])
    assert found.warnings == (
        "These runs are measured on different devices: their latencies do not compare.",
        "These runs are of different workloads: their scores do not compare.",
    )
    with pytest.raises(DefinitionError, match="unknown metric 'mac'. Did you mean 'macs'?"):
        compare([finished.RECORD, finished.RECORD], ["mac"])


@pytest.fixture
def two_runs(tmp_path):
    """A project with two runs, each with a study of one trial and its artifacts."""
    state = tmp_path / "mlruns"
    for name in ("a-1", "a-2"):
        path = state / "runs" / name
        (path / "finalists" / "f1").mkdir(parents=True)
        (path / "finalists" / "f1" / "model.onnx").write_bytes(b"x")
        run = RunFolder(path, name, "a", "d", str(tmp_path), "now", "w", {})
        (path / "run.json").write_text(json.dumps({k: v for k, v in asdict(run).items() if k != "path"}))
        subject = Subject(make_space(), {"size": "minimize"}, {})
        study = Study(state / DATABASE, name, subject, "random", 0)
        figures = {"size": Measurement(1.0, "bytes", "computed")}
        study.tell(study.ask(), Evaluation(Candidate({}), "", figures), {"size": -1.0})
        study.board.attach(None, "report.html", b"<p>")
        study.board.attach(0, "f1.onnx", b"onnx")
    return tmp_path


def test_a_deleted_run_leaves_nothing_and_the_other_one_alone(two_runs):
    state = two_runs / "mlruns"
    assert len(list((state / ARTIFACTS).iterdir())) == 6
    delete_run(find_run(two_runs, "a-1"))
    assert [run.run_id for run in runs(state)] == ["a-2"]
    assert not (state / "runs" / "a-1").exists()
    assert [s.study_name for s in open_storage(state / DATABASE).get_all_studies()] == ["a-2"]
    assert len(list((state / ARTIFACTS).iterdir())) == 3
    delete_run(find_run(two_runs, "a-2"))
    assert list((state / ARTIFACTS).iterdir()) == []


def test_a_run_that_is_half_deleted_is_deleted_again(two_runs):
    run = find_run(two_runs, "a-1")
    (run.state / DATABASE).unlink()
    (run.path / "finalists" / "f1" / "model.onnx").unlink()
    delete_run(run)
    assert not run.path.exists()


def test_a_run_in_use_is_not_deleted(two_runs):
    run = find_run(two_runs, "a-1")
    with locked(run), pytest.raises(StateError, match=f"Run a-1 is in use by process {os.getpid()} on "):
        delete_run(run)
    assert run.path.exists()


def test_a_record_of_another_version_is_no_traceback(two_runs):
    run = find_run(two_runs, "a-1")
    (run.path / "record.json").write_text('{"run_id": "a-1"}')
    with pytest.raises(
        StateError,
        match=r"record.json was written by another version of secateur, or is damaged: .*report is still there",
    ):
        read_record(run)


@pytest.mark.parametrize("content", ['{"run_id": "a-1", "colour": 1}', "", "[1]"])
def test_a_run_that_cannot_be_read_does_not_hide_the_others(two_runs, content, caplog):
    folder = find_run(two_runs, "a-1").path
    (folder / "run.json").write_text(content)
    assert [run.run_id for run in runs(two_runs / "mlruns")] == ["a-2"]
    assert "run.json was written by another version of secateur, or is damaged" in caplog.text
    with pytest.raises(StateError, match="or is damaged"):
        read_run(folder)
