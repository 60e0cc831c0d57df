"""Sending an invented run to MLflow itself: the embedded database, made once and copied."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from sqlalchemy import Engine, event

from finished import RECORD, finalist, make
from published import DIGESTS, X, compared, negation, package_of
from secateur.errors import ModelError, RegistryUnreachable
from secateur.registry import DATABASE, Target, open_embedded, publish, relocate
from secateur.registry.history import moves, promote, registry
from secateur.registry.publishing import _Publisher
from secateur.registry.serving import serving
from secateur.registry.tracking import Tracking
from tracking import tracking_at

TARGET = Target("m", "candidate", None)


@pytest.fixture(scope="module", autouse=True)
def _hurried():
    """Databases that last for a test need not reach the disk."""

    def hurry(connection, _record):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    state = tmp_path_factory.mktemp("made") / "mlruns"
    state.mkdir()
    open_embedded(state)
    return state


@pytest.fixture
def state(empty, tmp_path):
    """As after the first start, and as if this were where it was made."""
    state = tmp_path / "a project" / "mlruns"
    shutil.copytree(empty, state)
    open_embedded(state)
    return state


def client(state):
    uri = f"sqlite:///{state / DATABASE}"
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def at(state):
    """A person's own session on a project's database."""
    return tracking_at(f"sqlite:///{state / DATABASE}")


def runs_of(state):
    reader = client(state)
    experiment = reader.get_experiment_by_name(RECORD.name)
    return {r.data.tags["secateur.part"]: r for r in reader.search_runs([experiment.experiment_id])}


def test_what_a_person_sees_of_a_run(state):
    record = make(
        [
            replace(RECORD.finalists[0], losses=(0.9, 0.4, 0.2), on_search=RECORD.finalists[0].searched["accuracy"]),
            *RECORD.finalists[1:],
            finalist("f4-dd", 0.1, 0.1, failure="it broke", measurements={}),
        ],
        "f1-aa",
        {"f2-bb": {"missed": "-20.0 points", "test": None}},
    )
    published = publish(package_of(state, record), TARGET)
    runs, reader = runs_of(state), client(state)
    assert {name: run.info.run_id for name, run in runs.items()} == dict(published.runs)
    statuses = {name: run.data.tags.get("secateur.status") for name, run in runs.items()}
    assert statuses == {
        "r-1": None, "dense": None, "f1-aa": "knee", "f2-bb": "infeasible", "f3-cc": "front", "f4-dd": "failed"
    }  # fmt: skip
    assert runs["f4-dd"].info.status == "FAILED"
    experiment = reader.get_experiment_by_name(record.name)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"

    best = runs["f1-aa"]
    assert best.data.metrics["accuracy"] == 0.88
    assert best.data.metrics["speedup"] == pytest.approx(2.5)
    with at(state):
        figures = mlflow.artifacts.load_dict(f"{best.info.artifact_uri}/figures.json")
    assert figures["selection"]["accuracy"]["interval"] == [pytest.approx(0.86), pytest.approx(0.9)]
    assert best.data.params["a_b_.channels"] == "8"
    losses = reader.get_metric_history(best.info.run_id, "training/loss")
    assert [(m.step, m.value) for m in losses] == [(1, 0.9), (2, 0.4), (3, 0.2)]
    scores = reader.get_metric_history(best.info.run_id, "training/search_score")
    assert [m.step for m in scores] == [0, 3]
    assert "| top-1 accuracy | 88.0 [86.0, 90.0] % | 90.0 [88.0, 92.0] % |" in best.data.tags["mlflow.note.content"]

    parent = runs["r-1"]
    assert {(d.dataset.name, d.tags[0].value) for d in parent.inputs.dataset_inputs} == {(f"w/{r}", r) for r in DIGESTS}
    assert parent.data.tags["mlflow.source.name"] == "secateur run a <name>"
    assert parent.data.tags["mlflow.user"]
    assert "f1-aa" in parent.data.tags["mlflow.note.content"]

    models = reader.search_logged_models([experiment.experiment_id])
    assert {m.name for m in models} == {"f1-aa", "f2-bb", "f3-cc"}
    assert all(m.status == "READY" for m in models)
    of_data = {m.key: (m.dataset_name, m.dataset_digest) for m in next(m for m in models if m.name == "f1-aa").metrics}
    inputs = {(d.dataset.name, d.dataset.digest) for d in best.inputs.dataset_inputs}
    assert of_data["accuracy"] == ("w/selection", DIGESTS["selection"])
    assert of_data["accuracy_test"] == ("w/test", DIGESTS["test"])
    assert {*of_data.values()} == inputs, "curves are the run's alone"
    good = {"dataset_name": "w/test", "dataset_digest": DIGESTS["test"]}
    found = reader.search_logged_models([experiment.experiment_id], "metrics.accuracy_test > 0.8", datasets=[good])
    assert {m.name for m in found} == {"f1-aa", "f3-cc"}
    version = reader.get_model_version_by_alias("m", "candidate")
    assert version.tags["secateur.finalist"] == "f1-aa"
    assert 'load_model("models:/m@candidate")' in version.description
    assert "knee of the latest run's front" in reader.get_registered_model("m").description


def test_a_description_that_a_person_wrote_stands(state):
    reader = client(state)
    reader.create_registered_model("m", description="mine")
    publish(package_of(state), TARGET)
    assert reader.get_registered_model("m").description == "mine"


def test_a_logged_model_names_its_version_although_an_attempt_ended_between_the_two(state, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Tracking, "note_version", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(package_of(state), TARGET)
    publish(package_of(state), TARGET)
    reader = client(state)
    experiment = reader.get_experiment_by_name(RECORD.name).experiment_id
    (best,) = reader.search_logged_models([experiment], "name = 'f1-aa'")
    assert json.loads(best.tags["mlflow.modelVersions"]) == [{"name": "m", "version": "1"}]


def test_trouble_with_the_registered_model_ends_the_attempt(state, monkeypatch):
    def silent(*_, **__):
        raise mlflow.exceptions.MlflowException("no answer")

    monkeypatch.setattr(mlflow.MlflowClient, "create_registered_model", silent)
    with pytest.raises(RegistryUnreachable, match="no answer"):
        publish(package_of(state), TARGET)


def test_an_own_run_in_the_same_process_is_left_alone(state, tmp_path, empty, monkeypatch):
    own = tmp_path / "own" / "mlruns"
    shutil.copytree(empty, own)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with at(own):
        before = dict(os.environ)
        with mlflow.start_run(run_name="mine") as mine:
            mlflow.log_metric("before", 1)
            publish(package_of(state), TARGET)
            assert mlflow.active_run().info.run_id == mine.info.run_id
            mlflow.log_metric("after", 2)
        assert dict(os.environ) == before
        assert mlflow.get_tracking_uri() == f"sqlite:///{own / DATABASE}"
    assert client(own).get_run(mine.info.run_id).data.metrics == {"before": 1, "after": 2}
    assert len(runs_of(state)) == 5
    assert client(own).search_registered_models() == []


def test_sending_again_sends_nothing_and_what_was_half_sent_is_sent_anew(state, monkeypatch):
    package = package_of(state)
    sent = _Publisher._finalist

    def dies(self, parent, finalist):
        if finalist.name == "f3-cc":
            monkeypatch.setattr("secateur.registry.tracking.Tracking.log", lambda *_, **__: 1 / 0)
        return sent(self, parent, finalist)

    with monkeypatch.context() as patch:
        patch.setattr(_Publisher, "_finalist", dies)
        with pytest.raises(ZeroDivisionError):
            publish(package, TARGET)
    monkeypatch.undo()
    first = publish(package, TARGET)
    assert publish(package, TARGET) == first
    reader = client(state)
    experiment = reader.get_experiment_by_name(RECORD.name).experiment_id
    assert len(reader.search_runs([experiment])) == 5
    assert sorted(m.name for m in reader.search_logged_models([experiment])) == ["f1-aa", "f2-bb", "f3-cc"]
    assert {int(v.version) for v in reader.search_model_versions("name = 'm'")} == {1, 2}


def test_what_passes_the_gate_serves_where_that_is_wished_and_once(state):
    reader = client(state)
    automatic = replace(TARGET, promotes=True)
    published = publish(package_of(state, compared(True)), automatic)
    assert [v.aliases for v in published.versions] == [("candidate", "champion"), ()]
    assert publish(package_of(state, compared(True)), automatic) == published
    with registry(state, None) as server:
        assert [(m.action, m.version, m.before, m.state) for m in moves(server, "m")] == [("gate", "1", None, "done")]
    version = reader.get_model_version_by_alias("m", "champion")
    assert version.tags["validation_status"] == "passed"
    assert reader.get_model_version("m", "2").tags["validation_status"] == "pending"

    later = replace(compared(True, "1"), run_id="r-2", started="now, later")
    assert publish(package_of(state, later), TARGET).versions[0].aliases == ("candidate",), "by hand is the default"
    assert int(reader.get_model_version_by_alias("m", "champion").version) == 1


def test_what_fails_the_gate_gets_no_alias_and_says_by_what(state):
    published = publish(package_of(state, compared(False, "7")), replace(TARGET, promotes=True))
    assert [v.aliases for v in published.versions] == [(), ()]
    version = client(state).get_model_version("m", "1")
    assert version.tags["validation_status"] == "failed"
    assert "| size | 1.500 of the version's | not above it | **failed** |" in version.description
    assert client(state).get_registered_model("m").aliases == {}


def test_what_fails_the_gate_can_be_left_out(state):
    published = publish(package_of(state, compared(False, "7")), replace(TARGET, leaves_out=True))
    assert [v.finalist for v in published.versions] == ["f3-cc"]


def test_nothing_is_promoted_where_another_version_serves_by_now(state, caplog):
    publish(package_of(state), TARGET)
    with registry(state, None) as server:
        promote(server, "m", "2")
    late = replace(compared(True, "1"), run_id="r-2", started="now, later")
    published = publish(package_of(state, late), replace(TARGET, promotes=True))
    assert published.versions[0].aliases == ("candidate",)
    assert int(client(state).get_model_version_by_alias("m", "champion").version) == 2
    assert "has moved since" in caplog.text


def test_the_version_that_serves_is_fetched_and_its_file_checked(state, tmp_path):
    assert serving(state, TARGET, "candidate", tmp_path / "0", "onnx") is None
    publish(package_of(state), TARGET)
    assert serving(state, TARGET, "champion", tmp_path / "1", "onnx") is None
    found = serving(state, TARGET, "candidate", tmp_path / "2", "onnx")
    assert (found.number, found.onnx, found.file) == ("1", negation(), negation())
    with pytest.raises(ModelError, match=r"@candidate, version 1 of 'm' has no file 'model\.tflite'"):
        serving(state, TARGET, "candidate", tmp_path / "3", "tflite")
    (file,) = [f for f in state.rglob("artifacts/model.onnx") if f.read_bytes() == negation()][:1]
    for each in state.rglob("artifacts/model.onnx"):
        each.write_bytes(b"another")
    assert file.read_bytes() == b"another"
    with pytest.raises(ModelError, match="sha256 is another"):
        serving(state, TARGET, "candidate", tmp_path / "4", "onnx")


def test_a_run_of_many_groups_takes_few_requests(state, monkeypatch):
    from secateur.records import Candidate, Edit, GroupSummary

    groups = tuple(GroupSummary(f"layer{i}", "Conv2d", 16, 10, 10, ("l2",), (16, 8)) for i in range(160))
    many = Candidate({group.name: (Edit("channels", 8, "l2"),) for group in groups})
    record = replace(make([finalist("f1-aa", 0.88, 0.4, candidate=many)], "f1-aa"), groups=groups)
    requests = []
    send = mlflow.MlflowClient.log_batch
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *a, **k: requests.append(k) or send(*a, **k))
    publish(package_of(state, record), TARGET)
    assert len(requests) <= 12
    assert len(runs_of(state)["f1-aa"].data.params) == 1 + 2 * 160, "the precision, and two of each group"


def test_a_moved_project_loads_by_alias_and_takes_more(state, tmp_path):
    package = package_of(state)
    publish(package, TARGET)
    with at(state):
        np.testing.assert_array_equal(mlflow.pyfunc.load_model("models:/m@candidate").predict(X)["output"], -X)
    moved = tmp_path / "elsewhere" / "#2" / "mlruns"
    moved.parent.mkdir(parents=True)
    state.rename(moved)
    assert relocate(moved) == [state]
    assert relocate(moved) == []
    with at(moved):
        np.testing.assert_array_equal(mlflow.pyfunc.load_model("models:/m@candidate").predict(X)["output"], -X)
        np.testing.assert_array_equal(mlflow.pyfunc.load_model("models:/m/2").predict(X)["output"], -X)
    with contextlib.closing(sqlite3.connect(moved / DATABASE)) as database:
        assert str(state) not in "".join(database.iterdump())
        assert state.as_uri() not in "".join(database.iterdump())
    later = replace(RECORD, run_id="r-2", started="z")
    again = publish(package_of(moved, later), TARGET)
    with at(moved):
        loaded = mlflow.pyfunc.load_model("models:/m@candidate")
    assert loaded.metadata.run_id == again.runs["f1-aa"]
    assert not state.exists()


def test_a_copy_uses_its_own_files_and_the_original_keeps_its(state, tmp_path):
    publish(package_of(state), TARGET)
    copied = tmp_path / "copy" / "mlruns"
    shutil.copytree(state, copied)
    assert relocate(copied) == [state]
    assert relocate(state) == []


def test_a_database_without_its_artifacts_keeps_their_addresses(state, tmp_path):
    publish(package_of(state), TARGET)
    alone = tmp_path / "alone" / "mlruns"
    alone.mkdir(parents=True)
    shutil.copy(state / DATABASE, alone)
    assert relocate(alone) == []


def test_an_experiment_of_a_persons_own_elsewhere_keeps_its_address(state, tmp_path):
    elsewhere = (tmp_path / "disk" / "artifacts").as_uri()
    client(state).create_experiment("mine", artifact_location=elsewhere)
    moved = tmp_path / "b" / "mlruns"
    moved.parent.mkdir()
    publish(package_of(state), TARGET)
    state.rename(moved)
    relocate(moved)
    assert client(moved).get_experiment_by_name("mine").artifact_location == elsewhere


def test_a_database_of_another_version_of_mlflow_is_one_line(state):
    with contextlib.closing(sqlite3.connect(state / DATABASE)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'of the future'")
        database.commit()
    mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore._engine_map.clear()
    with pytest.raises(RegistryUnreachable, match="could not take run r-1.*send it later with: secateur flush r-1"):
        publish(package_of(state), TARGET)
