"""The main job through the command line, in a user's project, looked at from outside."""

from __future__ import annotations

import json
import re
import socket
import threading
from importlib.metadata import version
from urllib.request import Request, urlopen

import numpy as np
import onnxruntime
import pytest
import torch
import uvicorn

from end_to_end.conftest import call, make_project
from nets import network
from secateur import load_compressed
from secateur.pipelines.verifying import verify
from tracking import tracking_at
from waiting import LIMIT, until


@pytest.fixture(scope="session")
def run_folder(finished):
    project, _ = finished
    (folder,) = (project / "mlruns" / "runs").iterdir()
    return folder


@pytest.fixture(scope="session")
def record(run_folder):
    return json.loads((run_folder / "record.json").read_text())


@pytest.fixture
def tracking(finished):
    import mlflow

    project, _ = finished
    with tracking_at(f"sqlite:///{project / 'mlruns' / 'mlflow.db'}"):
        yield mlflow


def test_the_command_succeeds_and_says_what_came_of_it(finished):
    _, done = finished
    assert done.returncode == 0, done.stderr
    assert "knee of the front" in done.stdout
    assert "registered: tiny-model version" in done.stdout
    assert "@candidate" in done.stdout
    assert "16 of 16" in done.stderr


def test_the_budget_was_spent_on_different_networks(record):
    own = [t for t in record["trials"] if t["same_as"] is None]
    keys = [t["evaluation"]["plan_key"] for t in own]
    assert len(keys) == len(set(keys)) == 16
    assert {t["arm"] for t in own} >= {"dense", "uniform", "random", "global", "knapsack"}


def test_the_files_of_a_finalist_agree_with_each_other_and_with_their_figures(
    finished, run_folder, record, monkeypatch
):
    project, _ = finished
    monkeypatch.chdir(project)
    from conftest import make_workload
    from secateur.workloads.roles import collect

    workload = make_workload(network("residual"))
    (x,), y = collect(workload.data.selection)
    for finalist in record["finalists"]:
        folder = run_folder / finalist["folder"]
        module = load_compressed(folder / "compressed", workload.build_model())
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        outputs = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
        with torch.no_grad():
            torch.testing.assert_close(module(x), outputs, rtol=1e-3, atol=1e-3)
        assert finalist["measurements"]["accuracy"]["value"] == pytest.approx(
            workload.score(outputs, y).mean().item(), abs=1e-6
        )
        assert finalist["measurements"]["size"]["value"] == (folder / "model.onnx").stat().st_size
        parameters = sum(p.numel() for p in module.parameters())
        assert finalist["measurements"]["parameters"]["value"] == parameters
        assert not (folder / "checkpoint.safetensors").exists()


def passed(verdict):
    return verdict["on_front"] and all(check["missed"] is None for check in verdict["checks"])


def test_test_data_was_used_for_what_is_registered_only(record):
    for finalist in record["finalists"]:
        verdict = record["verdicts"][finalist["name"]]
        assert (verdict["test"] is not None) == passed(verdict)
    assert record["dense"]["test"]["accuracy"]["samples"] == 90


def test_every_trial_that_scores_on_search_data_scores_on_nothing_else(record):
    evaluations = [t["evaluation"] for t in record["trials"]]
    assert {e["measurements"]["accuracy"]["samples"] for e in evaluations if e["stopped"] is None} == {60}
    assert {e["measurements"]["accuracy"]["samples"] for e in evaluations if e["stopped"]} <= {
        15
    }  # given up after a quarter
    assert {f["measurements"]["accuracy"]["samples"] for f in record["finalists"]} == {60}
    assert record["samples"] == {"train": 326, "calibration": 64, "search": 60, "selection": 60, "test": 90}


def test_the_candidate_loads_from_the_registry_and_predicts(tracking, run_folder, record):
    best = next(f for f in record["finalists"] if f["name"] == record["knee"])
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    predicted = tracking.pyfunc.load_model("models:/tiny-model@candidate").predict(x)["output"]
    session = onnxruntime.InferenceSession(
        run_folder / best["folder"] / "model.onnx", providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(predicted, session.run(None, {"input": x})[0], rtol=1e-5)


def test_a_version_is_fetched_and_measured_anew(finished, record):
    """Latency is timed anew on a machine with neighbours: whether its interval still meets the first is not asked here."""
    project, _ = finished
    found = verify(project, "tiny-model", "@candidate", None)
    figures = {figure.name: figure for figure in found.figures}
    assert found.altered == ()
    assert figures["accuracy"].holds
    assert figures["accuracy"].now.value == figures["accuracy"].registered.value
    assert figures["size"].holds
    assert 0 < figures["latency"].now.value < 2
    (knee,) = [f for f in record["finalists"] if f["name"] == record["knee"]]
    assert figures["size"].registered.value == knee["measurements"]["size"]["value"]

    written = {file: file.read_text() for file in (project / "mlruns" / "artifacts").rglob("compressed.json")}
    for file, text in written.items():
        file.write_text(text + " ")
    altered = verify(project, "tiny-model", "@candidate", None).altered
    for file, text in written.items():
        file.write_text(text)
    assert altered == ("compressed/compressed.json",)


def test_a_served_version_answers_as_the_torch_module_does(tracking, run_folder, record):
    """By the server that `mlflow models serve` starts, here in a thread."""
    from mlflow.pyfunc import scoring_server

    best = next(f for f in record["finalists"] if f["name"] == record["knee"])
    x = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    app = scoring_server.init(tracking.pyfunc.load_model("models:/tiny-model@candidate"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started, "the server")
            asked = Request(
                f"http://127.0.0.1:{listening.getsockname()[1]}/invocations",
                json.dumps({"inputs": x.tolist()}).encode(),
                {"Content-Type": "application/json"},
            )
            with urlopen(asked, timeout=LIMIT) as answer:
                predicted = json.load(answer)["predictions"]["output"]
        finally:
            server.should_exit = True
            thread.join()
    module = load_compressed(run_folder / best["folder"] / "compressed", network("residual"))
    with torch.no_grad():
        np.testing.assert_allclose(predicted, module(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_runs_and_versions_in_mlflow_tell_the_same_story(tracking, record):
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    runs = {r.data.tags["secateur.part"]: r for r in client.search_runs([experiment.experiment_id])}
    parent = runs[record["run_id"]]
    names = {f["name"] for f in record["finalists"]}
    assert set(runs) == {record["run_id"], "dense"} | names
    assert all(r.info.status == "FINISHED" for r in runs.values())
    assert all(runs[n].data.tags["mlflow.parentRunId"] == parent.info.run_id for n in names | {"dense"})
    assert parent.data.params["search.seed"] == "1"
    assert parent.data.tags["secateur.torch"] == version("torch")
    artifacts = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"definition.yaml", "record.json", "report.html"}
    for finalist in record["finalists"]:
        run = runs[finalist["name"]]
        assert run.data.metrics["accuracy"] == finalist["measurements"]["accuracy"]["value"]
        listed = {a.path for a in client.list_artifacts(run.info.run_id, "compressed")}
        assert listed == {"compressed/compressed.json", "compressed/tensors.safetensors"}
    versions = client.search_model_versions("name = 'tiny-model'")
    registered = [name for name, verdict in record["verdicts"].items() if passed(verdict)]
    assert sorted(v.tags["secateur.finalist"] for v in versions) == sorted(registered)
    candidate = client.get_model_version_by_alias("tiny-model", "candidate")
    assert candidate.tags["secateur.finalist"] == record["knee"]
    assert float(candidate.tags["secateur.size"]) > 0


def test_no_file_of_the_state_is_a_pickle_of_ours(finished):
    project, _ = finished
    suffixes = {p.suffix for p in (project / "mlruns" / "runs").rglob("*") if p.is_file()}
    assert suffixes <= {".json", ".yaml", ".onnx", ".safetensors", ".html", ".npz", ".log", ".txt", ""}


def test_resume_refuses_what_is_finished(finished, record):
    project, _ = finished
    refused = call(project, "resume", record["run_id"])
    assert refused.returncode == 75
    assert f"Run {record['run_id']} is finished" in refused.stderr
    refused = call(project.parent, "resume", "--project", str(project))
    assert refused.returncode == 2
    assert "Every run is finished" in refused.stderr


def test_show_prints_the_same_table(finished, record):
    project, done = finished
    shown = call(project, "show")
    assert shown.returncode == 0
    names = ("dense ", *(f["name"] for f in record["finalists"]))
    table = [line for line in done.stdout.splitlines() if line.startswith(names)]
    assert len(table) >= len(names)
    assert [line for line in shown.stdout.splitlines() if line.startswith(names)] == table
    assert json.loads(call(project, "show", "--json").stdout) == record
    unknown = call(project, "show", "tiny-1")
    assert unknown.returncode == 2
    assert "There is no run 'tiny-1'" in unknown.stderr


def test_flushing_again_registers_nothing_twice(finished, tracking):
    project, _ = finished
    before = len(tracking.MlflowClient().search_model_versions("name = 'tiny-model'"))
    flushed = call(project, "flush")
    assert flushed.returncode == 0, flushed.stderr
    assert len(tracking.MlflowClient().search_model_versions("name = 'tiny-model'")) == before


def test_the_report_is_attached_to_the_study(finished):
    import optuna

    project, _ = finished
    storage = f"sqlite:///{project / 'mlruns' / 'studies.db'}"
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    (artifact,) = optuna.artifacts.get_all_artifact_meta(study)
    assert artifact.filename == "report.html"
    stored = project / "mlruns" / "study_artifacts" / artifact.artifact_id
    assert stored.read_bytes().startswith(b"<!doctype html>")
    assert study.metric_names == ["accuracy", "latency", "size"]


def test_the_report_fetches_nothing_and_holds_the_figures(run_folder, record):
    page = (run_folder / "report.html").read_text()
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", outside)
    for finalist in record["finalists"]:
        assert finalist["name"] in page
    for part in ("The front", "Before and after", "What was cut", "Sensitivity", "How it was measured"):
        assert part in page
    assert "its channels are the model&#39;s output" in page
    assert "models:/tiny-model@candidate" in page, "it is written once more when the versions are known"


def test_check_says_what_would_happen_and_writes_nothing(tmp_path):
    project = make_project(tmp_path)
    masked = "search_space.groups=[{types: [Conv2d], methods: [l2, weights/magnitude], at_least: 4}]"
    checked = call(project, "check", "tiny", "--json", "--set", masked)
    assert checked.returncode == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert {g["name"] for g in found["groups"]} >= {"conv1", "layer1.0.conv1"}
    assert [e["name"] for e in found["excluded"]] == ["linear"]
    assert "16 candidates" in found["facts"]["search"]
    assert found["facts"]["files of candidates"] == "rewritten from one export"
    assert found["facts"]["zeros"].startswith("No kernel of onnxruntime skips the zeros of single weights")
    assert not (project / "mlruns").exists()
