"""What is written for the Optuna dashboard, read back through the dashboard itself; its pages are looked at in end_to_end."""

from __future__ import annotations

import csv
import io
import json
import socket
import sys
from dataclasses import replace
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import FileSystemArtifactStore

from invented import narrowed
from secateur.compression.groups import FoundGroups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import DefinitionError, StateError
from secateur.records import Candidate, Evaluation, Group, Measurement, Member, Recovered, Trial
from secateur.search.board import ARTIFACTS, Board, store_artifact
from secateur.search.dashboard import (
    LISTED,
    Original,
    finalist_note,
    group_table,
    later_attributes,
    trial_attributes,
    trial_note,
)
from secateur.search.dashboard_server import Corrected, serve
from secateur.search.storage import open_storage
from secateur.search_spaces import build_space


def figures(accuracy, latency):
    return {
        "accuracy": Measurement(accuracy, "score", "measured", 100, (accuracy - 0.02, accuracy + 0.02)),
        "latency": Measurement(latency, "of dense", "measured", 8, (latency, latency), "cpu", {"p50_ms": 3.5}),
        "macs": Measurement(latency * 1e6, "MACs", "computed"),
    }


ORIGINAL = Original(figures(0.9, 1.0), {"a": 16, "b": 32, "c": 8}, ("l1", "l2"))
CUT = narrowed({"a": 8, "b": 24})
TRIAL = Trial(4, "uniform", "uniform 0.5 l2", Evaluation(CUT, "k", figures(0.8, 0.5), seconds=1.5), None)
OBJECTIVES = ("accuracy", "latency")


def without_figures(**changes):
    return replace(TRIAL, evaluation=Evaluation(CUT, "k", {}, **changes))


def test_attributes_are_numbers_wherever_a_column_is_to_be_sorted():
    attributes = trial_attributes(TRIAL, {"accuracy": -0.1}, ORIGINAL, OBJECTIVES)
    assert attributes == {
        "arm": "uniform",
        "label": "uniform 0.5 l2",
        "feasible": True,
        "macs": 5e5,
        "speed-up": 2.0,
        "p50_ms": 3.5,
        "channels removed": 16,
        "groups by l1": 0,
        "groups by l2": 2,
        "seconds": 1.5,
    }


def test_feasibility_is_said_only_of_what_can_be_judged():
    assert trial_attributes(TRIAL, {"accuracy": -1, "size": 0.1}, ORIGINAL, OBJECTIVES)["feasible"] is False
    assert trial_attributes(TRIAL, {"accuracy": 0.0}, ORIGINAL, OBJECTIVES)["feasible"] is True
    assert "feasible" not in trial_attributes(without_figures(failure="NaN"), {}, ORIGINAL, OBJECTIVES)


def test_a_latency_in_other_units_is_no_speed_up():
    measured = {"latency": Measurement(12.0, "ms", "measured")}
    trial = replace(TRIAL, evaluation=Evaluation(CUT, "k", measured))
    assert "speed-up" not in trial_attributes(trial, {}, ORIGINAL, OBJECTIVES)


def test_a_note_says_where_a_trial_comes_from_and_what_was_cut():
    note = trial_note(TRIAL, {"accuracy": -0.1}, ORIGINAL)
    assert "**uniform 0.5 l2** (arm: uniform)" in note
    assert "| accuracy, score | 0.8 (0.78 to 0.82) | 0.9 (0.88 to 0.92) |" in note
    assert "| macs | 500,000 | 1,000,000 |" in note
    assert note.endswith("Cuts 2 of 3 groups: a 8/16 (l2), b 24/32 (l2).")
    assert "Infeasible" not in note


@pytest.mark.parametrize(
    ("trial", "violations", "expected"),
    [
        (TRIAL, {"accuracy": 0.1, "size": -1}, "**Infeasible**, misses: accuracy."),
        (without_figures(failure="the session died"), {}, "**Failed:** the session died"),
        (without_figures(stopped="too many MACs"), {}, "**Not evaluated in full:** too many MACs"),
        (replace(TRIAL, same_as=2), {}, "The same network as trial 2, whose figures these are."),
        (replace(TRIAL, evaluation=Evaluation(Candidate({}), "k", {})), {}, "Nothing is cut."),
    ],
)
def test_a_note_says_what_became_of_a_trial(trial, violations, expected):
    assert expected in trial_note(trial, violations, ORIGINAL)


def test_a_note_on_what_was_rejected_unseen_marks_forecasts_and_claims_no_score():
    foreseen = {
        "macs": Measurement(9e5, "MACs", "computed"),
        "size": Measurement(2e5, "bytes", "predicted", interval=(1.9e5, 2.1e5)),
    }
    reason = "rejected unseen: size would miss 'size at most 1e+05'"
    trial = replace(TRIAL, evaluation=Evaluation(CUT, "k", foreseen, stopped=reason))
    violations = {"accuracy within 0.05 of the dense model": 1.0, "size at most 1e+05": 1.0}
    note = trial_note(trial, violations, ORIGINAL)
    assert f"**Not evaluated in full:** {reason}" in note
    assert "| size, bytes | 200,000 (190,000 to 210,000), predicted | – |" in note
    assert "accuracy" not in note
    assert trial_attributes(trial, violations, ORIGINAL, OBJECTIVES)["feasible"] is False


def test_the_original_of_a_space():
    groups = tuple(Group(n, "Conv2d", (Member("x", "out", "c", (), ()),), 8, tuple(range(8)), 1, 1) for n in "ab")
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1", "l2"]}]})
    space = build_space(declared, FoundGroups(groups, (), None))
    assert Original.of(space, ORIGINAL.dense) == Original(ORIGINAL.dense, {"a": 8, "b": 8}, ("l1", "l2"))


def test_a_note_names_a_dozen_groups_and_points_at_the_table_for_the_rest():
    names = [f"g{i}" for i in range(LISTED + 3)]
    wide = Original({}, dict.fromkeys(names, 8), ("l1",))
    trial = replace(TRIAL, evaluation=Evaluation(narrowed(dict.fromkeys(names, 4), "l1"), "k", {}))
    note = trial_note(trial, {}, wide)
    assert f"g{LISTED - 1} 4/8 (l1), and 3 more (groups.csv)." in note
    assert f"g{LISTED} " not in note


def test_the_table_has_a_line_per_group():
    rows = list(csv.DictReader(io.StringIO(group_table(CUT, ORIGINAL.widths))))
    assert [r["group"] for r in rows] == ["a", "b", "c"]
    assert rows[1] == {
        "group": "b", "channels": "32", "kept": "24", "removed": "8", "share removed": "0.25", "method": "l2",
    }  # fmt: skip
    assert rows[2]["method"] == ""


FINALIST = Recovered("f1-abc", 1, CUT, figures(0.6, 0.5), figures(0.85, 0.5), "f1", 12, 34.0)
TEST = figures(0.84, 1)["accuracy"]


def test_what_comes_after_recovery():
    note = finalist_note(FINALIST, TEST, figures(0.9, 1.0), "knee of the front")
    assert "### f1-abc: knee of the front" in note
    assert "Fine-tuned for 12 epochs, 34 s." in note
    assert "| accuracy, score | 0.6 (0.58 to 0.62) | 0.85 (0.83 to 0.87) | 0.9 (0.88 to 0.92) |" in note
    assert "Test data: 0.84" in note
    assert later_attributes(FINALIST, TEST, OBJECTIVES, "abc") == {
        "finalist": "f1-abc",
        "recovered accuracy": 0.85,
        "recovered latency": 0.5,
        "recovered speed-up": 2.0,
        "recovered p50_ms": 3.5,
        "test accuracy": 0.84,
        "mlflow_run_id": "abc",
    }
    failed = replace(FINALIST, measurements={}, failure="no memory")
    assert later_attributes(failed, None, OBJECTIVES, None) == {"finalist": "f1-abc"}


@pytest.fixture
def storage(tmp_path):
    return open_storage(tmp_path / "studies.db")


@pytest.fixture
def board(storage, tmp_path):
    """Trials 0 to 3: the best of all but infeasible; two on the feasible front; one that a feasible one dominates; a failed one."""
    study = optuna.create_study(storage=storage, study_name="s", directions=["maximize", "minimize"])
    told = [([0.9, 0.1], 0.5), ([0.8, 0.2], -0.5), ([0.7, 0.15], 0.0), ([0.6, 0.3], -0.1)]
    for values, violation in told:
        attributes = {"constraints": [violation]}
        study.add_trial(optuna.trial.create_trial(values=values, system_attrs=attributes, user_attrs={"arm": "x"}))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    return Board(storage, "s", tmp_path / ARTIFACTS)


def get(storage, tmp_path, path, *, host="localhost:8080", query=""):
    """Status and body of the corrected dashboard's answer."""
    app = Corrected(optuna_dashboard.wsgi(storage, FileSystemArtifactStore(tmp_path / ARTIFACTS)), storage)
    environ = {"PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": host}
    setup_testing_defaults(environ)
    status = []
    answer = app(environ, lambda *begun: status.append(begun[0]))
    body = b"".join(answer)
    getattr(answer, "close", lambda: None)()  # as a server does: files are answered as open ones
    return status[0], body


def shown(storage, tmp_path, query=""):
    status, body = get(storage, tmp_path, "/api/studies/1", query=query)
    assert status.startswith("200")
    return json.loads(body)


def test_an_infeasible_trial_is_not_among_the_best_and_hides_none(board, storage, tmp_path):
    assert [t["number"] for t in shown(storage, tmp_path)["best_trials"]] == [1, 2]
    assert board.infeasible() == {0}


def test_a_page_that_asks_for_new_trials_gets_those_and_all_of_the_best(board, storage, tmp_path):
    page = shown(storage, tmp_path, "after=3")
    assert [t["number"] for t in page["trials"]] == [3, 4]
    assert [t["number"] for t in page["best_trials"]] == [1, 2]


def test_an_empty_study_has_no_best_trials(storage, tmp_path):
    optuna.create_study(storage=storage, study_name="empty", directions=["maximize", "minimize"])
    assert shown(storage, tmp_path)["best_trials"] == []


def test_attributes_that_come_after_a_trial_was_finished(board, storage, tmp_path):
    board.later(1, {"finalist": "f1"})
    board.later(1, {"finalist": "f1", "recovered accuracy": 0.85})
    page = shown(storage, tmp_path)
    assert {a["key"]: a["value"] for a in page["trials"][1]["user_attrs"]} == {
        "arm": "x", "finalist": "f1", "recovered accuracy": "0.85",
    }  # fmt: skip
    assert {a["key"]: a["sortable"] for a in page["union_user_attrs"]} == {
        "arm": False, "finalist": False, "recovered accuracy": True,
    }  # fmt: skip
    assert [a["key"] for a in page["trials"][2]["user_attrs"]] == ["arm"]


def test_notes_are_added_below_what_a_person_wrote_and_only_once(board, storage, tmp_path):
    long = "words " * 1000
    board.begin_note(1, long)
    board.add_note(1, "after recovery")
    board.add_note(1, "after recovery")
    board.add_note(None, "of the study")
    page = shown(storage, tmp_path)
    assert page["trials"][1]["note"] == {"version": 2, "body": f"{long}\n\nafter recovery"}
    assert page["note"] == {"version": 1, "body": "of the study"}
    assert page["trials"][2]["note"]["body"] == ""


def test_files_of_finished_trials_and_of_the_study_can_be_fetched(board, storage, tmp_path):
    for content in (b"first", b"second"):  # the same name again replaces the file
        board.attach(2, "model.onnx", content)
    board.attach(None, "report.html", b"<p>")
    page = shown(storage, tmp_path)
    (artifact,) = page["trials"][2]["artifacts"]
    assert artifact["filename"] == "model.onnx"
    trial = page["trials"][2]["trial_id"]
    assert get(storage, tmp_path, f"/artifacts/1/{trial}/{artifact['artifact_id']}")[1] == b"second"
    assert [a["filename"] for a in page["artifacts"]] == ["report.html"]
    assert page["trials"][1]["artifacts"] == []


def test_a_file_stored_with_a_new_trial_is_one_of_its_artifacts(board, storage, tmp_path):
    key, described = store_artifact(tmp_path / ARTIFACTS, "s/5", "groups.csv", b"a,b\n")
    study = optuna.load_study(study_name="s", storage=storage)
    study.add_trial(optuna.trial.create_trial(values=[0.1, 0.9], system_attrs={key: described}))
    (artifact,) = shown(storage, tmp_path)["trials"][5]["artifacts"]
    assert (artifact["filename"], artifact["mimetype"]) == ("groups.csv", "text/csv")


def test_a_figure_that_shrinks_leaves_nothing_behind(board, storage, tmp_path):
    board.figure("front-latency", json.dumps({"data": ["x" * 9000]}))
    board.figure("front-latency", json.dumps({"data": []}))
    (figure,) = shown(storage, tmp_path)["plotly_graph_objects"]
    assert figure["id"] == "front-latency"
    assert json.loads(figure["graph_object"]) == {"data": []}


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8080", "localhost.attacker.example", ""])
def test_other_names_than_loopback_are_refused(board, storage, tmp_path, host):
    status, body = get(storage, tmp_path, "/api/studies", host=host)
    assert status.startswith("403")
    assert b"Open http://localhost" in body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:80"])
def test_loopback_names_are_answered(board, storage, tmp_path, host):
    status, body = get(storage, tmp_path, "/api/studies", host=host)
    assert status.startswith("200")
    assert [s["study_name"] for s in json.loads(body)["study_summaries"]] == ["s"]


def test_a_study_that_is_not_there(board, storage, tmp_path):
    assert get(storage, tmp_path, "/api/studies/77")[0].startswith("404")


def never(_url):
    pytest.fail("nothing is served")


def test_without_studies_there_is_nothing_to_open(tmp_path):
    with pytest.raises(DefinitionError, match=r"There are no studies yet: .*studies.db.*secateur run PIPELINE"):
        serve(tmp_path / "studies.db", 0, never)


def test_the_extra_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(DefinitionError, match=r"pip install 'secateur\[dashboard\]'"):
        serve(tmp_path / "studies.db", 0, never)


def test_a_port_that_is_taken(storage, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StateError, match=rf"Port {port} cannot be opened: .*Give another one with --port"):
            serve(tmp_path / "studies.db", port, never)
