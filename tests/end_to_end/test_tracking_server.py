"""A tracking server that is down loses nothing, and its credentials are in nothing that a run writes or shows."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from end_to_end.conftest import call, environment, make_project
from waiting import until

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def tracking_server(folder):
    """MLflow's own server, with the options that docker/compose.yaml gives it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
         f"--backend-store-uri=sqlite:///{folder / 'server.db'}", f"--artifacts-destination={folder / 'server'}"],
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as response:
                return response.status == 200
        except OSError:
            return False

    try:
        until(answers, alive=process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


def test_what_could_not_be_sent_is_kept_and_flushed_later(unsent, tmp_path):
    project, said = unsent
    assert [answer.returncode for answer in said] == [75, 75], said[-1].stderr
    assert "could not take run" in said[0].stderr
    assert "secateur flush tiny-" in said[0].stderr
    (run,) = (project / "mlruns" / "runs").iterdir()
    assert (run / "record.json").is_file()
    assert (run / "report.html").is_file()
    assert not (project / "mlruns" / "mlflow.db").exists(), "nothing went elsewhere"
    with tracking_server(tmp_path) as address:
        flushed = call(project, "flush", MLFLOW_TRACKING_URI=address)
        assert flushed.returncode == 0, flushed.stderr
        assert "@candidate" in flushed.stdout
        question = f"{address}/api/2.0/mlflow/registered-models/alias?name=tiny-model&alias=candidate"
        with urllib.request.urlopen(question, timeout=30) as response:
            version = json.load(response)["model_version"]
    assert {tag["key"]: tag["value"] for tag in version["tags"]}["secateur.run_id"] == run.name
    assert any((tmp_path / "server").rglob("model.onnx")), "the artifacts went through the server"
