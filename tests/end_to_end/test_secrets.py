"""Credentials of a tracking server are in nothing that a run writes or shows, also where the server shows them itself."""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from end_to_end.conftest import make_project, secateur

SECRETS = {"password": "ge%40heim&1", "token": "zeichen-9", "other": "s3cr3t/key"}


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


@contextmanager
def echoing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_servers_credentials_are_in_no_file_and_no_message(tmp_path):
    project = make_project(tmp_path)
    (project / "evaluators" / "local.yaml").write_text("objectives: {accuracy: maximize, size: minimize}\n")
    with echoing() as port:
        answers = []
        for address in (f"127.0.0.1:{port}", "127.0.0.1:1"):  # one that shows everything, one that does not answer
            more = {
                "MLFLOW_TRACKING_URI": f"http://me:{SECRETS['password']}@{address}/?token={SECRETS['token']}",
                "MLFLOW_TRACKING_PASSWORD": SECRETS["other"],
                "MLFLOW_TRACKING_USERNAME": "me",
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            }
            command = (
                ("run", "tiny", "--set", "search.trials=4", "--set", "recover.finalists=1", "-v")
                if not answers
                else ("flush", "-v")
            )
            answers.append(secateur(project, *command, **more))
    assert [answer.returncode for answer in answers] == [75, 75], answers[-1].stderr
    written = {str(file): file.read_bytes() for file in project.rglob("*") if file.is_file()}
    assert any(name.endswith("log.txt") for name in written)
    written |= {f"answer {i}": (answer.stdout + answer.stderr).encode() for i, answer in enumerate(answers)}
    login = base64.b64encode(f"me:{SECRETS['other']}".encode()).decode()
    for secret in (*SECRETS.values(), "ge@heim&1", login):
        holders = [name for name, content in written.items() if secret.encode() in content]
        assert not holders, f"{secret} is in {holders}"
