"""A tracking server that is down or dies loses nothing, and its credentials are in nothing that a run writes or shows."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import threading
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow import MlflowClient

from end_to_end.conftest import call, make_project
from finished import RECORD
from gateway import gateway
from postgresql import postgresql
from published import compared, package_of
from secateur.errors import RegistryUnreachable
from secateur.registry import Target, publish
from secateur.registry.history import moves, registry
from tracking import tracking_server

SECRETS = {"password": "ge%40heim&1", "token": "zeichen-9", "other": "s3cr3t/key"}
NOWHERE = "127.0.0.1:1"


class Echo(BaseHTTPRequestHandler):
    """Refuses everything, and shows what it was sent."""

    def do_GET(self):  # the interface
        text = f"refused: {self.path} {dict(self.headers)} {SECRETS['other']}".encode()
        self.send_response(500)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET  # noqa: N815 # the interface

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def echoing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def with_secrets(address):
    return {
        "MLFLOW_TRACKING_URI": f"http://me:{SECRETS['password']}@{address}/?token={SECRETS['token']}",
        "MLFLOW_TRACKING_PASSWORD": SECRETS["other"],
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }


@pytest.fixture(scope="module")
def unsent(tmp_path_factory):
    """A project whose run could not be sent, and what was said: nobody answered, then a server that shows everything."""
    project = make_project(tmp_path_factory.mktemp("project"))
    (project / "evaluators" / "local.yaml").write_text("objectives: {accuracy: maximize, size: minimize}\n")
    options = ("--set", "search.trials=6", "--set", "recover.finalists=1", "-v")
    said = [call(project, "run", "tiny", *options, **with_secrets(NOWHERE))]
    with echoing() as address:
        said.append(call(project, "flush", "-v", **with_secrets(address)))
    return project, said


def test_credentials_are_in_no_file_and_no_message(unsent):
    project, said = unsent
    written = {str(file): file.read_bytes() for file in project.rglob("*") if file.is_file()}
    assert any(name.endswith("log.txt") for name in written)
    written |= {f"answer {i}": (answer.stdout + answer.stderr).encode() for i, answer in enumerate(said)}
    login = base64.b64encode(f"me:{SECRETS['other']}".encode()).decode()
    for secret in (*SECRETS.values(), "ge@heim&1", login):
        holders = [name for name, content in written.items() if secret.encode() in content]
        assert not holders, f"{secret} is in {holders}"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request, tmp_path_factory):
    """MLflow's own server on each of these databases: its address, and the folder of its artifacts."""
    folder = tmp_path_factory.mktemp("server")
    with contextlib.ExitStack() as stack:
        store = f"sqlite:///{folder}/server.db" if request.param == "sqlite" else stack.enter_context(postgresql())
        yield stack.enter_context(tracking_server(folder, store)), folder / "artifacts"


def test_what_could_not_be_sent_is_kept_and_flushed_later(unsent, server, tmp_path):
    project, said = unsent
    assert [answer.returncode for answer in said] == [75, 75], said[-1].stderr
    assert "could not take run" in said[0].stderr
    assert "secateur flush tiny-" in said[0].stderr
    assert not (project / "mlruns" / "mlflow.db").exists(), "nothing went elsewhere"
    project = shutil.copytree(project, tmp_path / "project")
    (run,) = (project / "mlruns" / "runs").iterdir()
    assert (run / "record.json").is_file()
    assert (run / "report.html").is_file()
    address, artifacts = server
    with gateway(address, lambda _, request: request.endswith("model.onnx"), "dies") as dying:
        answer = call(project, "flush", MLFLOW_TRACKING_URI=dying.address)
    assert (answer.returncode, answer.stdout) == (75, "")
    assert f"Everything is in {run}; send it later with: secateur flush {run.name}" in answer.stderr
    flushed = call(project, "flush", MLFLOW_TRACKING_URI=address)
    assert flushed.returncode == 0, flushed.stderr
    assert "@candidate" in flushed.stdout
    assert "View run" not in flushed.stdout, "MLflow's own words"
    question = f"{address}/api/2.0/mlflow/registered-models/alias?name=tiny-model&alias=candidate"
    with urllib.request.urlopen(question, timeout=30) as response:
        version = json.load(response)["model_version"]
    assert {tag["key"]: tag["value"] for tag in version["tags"]}["secateur.run_id"] == run.name
    assert any(artifacts.rglob("model.onnx")), "the artifacts went through the server"


CUTS = (
    ("POST /api/2.0/mlflow/runs/create", 1, "loses an answer"),
    ("POST /api/2.0/mlflow/logged-models", 1, "dies having done it"),
    ("/artifacts/figures.json", 2, "falls silent"),
    ("POST /api/2.0/mlflow/model-versions/create", 1, "loses an answer"),
    ("POST /api/2.0/mlflow/registered-models/alias", 2, "dies"),
    ("POST /api/2.0/mlflow/registered-models/set-tag", 2, "dies"),
)
"""Of a publication: at which request of a kind it is cut off, and how. It must get past the earlier ones each time."""


def test_however_often_a_publication_is_cut_off_each_part_is_there_once(server, tmp_path, monkeypatch):
    address, _ = server
    record = replace(compared(True), name="cut off", finalists=RECORD.finalists[:1])
    package, target = package_of(tmp_path / "mlruns", record), Target("cut off", "candidate", address, promotes=True)
    for wanted, time, kind in CUTS:

        def fails(_, request, wanted=wanted, time=time):
            return wanted in request and sum(wanted in earlier for earlier in failing.seen) == time

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1" if kind == "falls silent" else "60")
        unreachable = pytest.raises(RegistryUnreachable, match="send it later with: secateur flush r-1")
        with gateway(address, fails, kind) as failing, unreachable:
            publish(package, replace(target, tracking_uri=failing.address))
    monkeypatch.undo()
    published = publish(package, target)
    assert publish(package, target) == published
    reader = MlflowClient(address, address)
    experiment = reader.get_experiment_by_name(record.name).experiment_id
    runs = {run.info.run_id: run.info.status for run in reader.search_runs([experiment])}
    assert runs == dict.fromkeys(published.runs.values(), "FINISHED")
    (model,) = reader.search_logged_models([experiment])
    assert (model.name, model.status, len(model.metrics)) == ("f1-aa", "READY", 7)
    (version,) = reader.search_model_versions(f"name = '{target.name}'")
    aliases = reader.get_registered_model(target.name).aliases
    assert {alias: int(number) for alias, number in aliases.items()} == dict.fromkeys(
        ("candidate", "champion"), int(version.version)
    )
    with registry(tmp_path, address) as asked:
        *earlier, state = (move.state for move in moves(asked, target.name))
    assert (set(earlier), state) == ({"abandoned"}, "done")
