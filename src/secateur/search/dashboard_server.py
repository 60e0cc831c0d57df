"""The Optuna dashboard on our storage: its own pages, with two things put right on the way out.

With several objectives it counts infeasible trials among the best (its plots read the constraints and grey them); and what became
known of a trial after it was finished stands with the study (`secateur.search.board`). It has no authentication, so it is bound to
loopback and answers to a loopback name only: a page of somebody else's cannot be pointed at it.
"""

from __future__ import annotations

import errno
import json
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage, get_storage

from secateur.errors import DefinitionError, StateError
from secateur.files import disk_errors
from secateur.search.board import ARTIFACTS, later_attributes
from secateur.search.storage import open_storage

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve(database: Path, port: int, announce: Callable[[str], None], *, in_container: bool = False) -> None:
    """Serve on loopback until Ctrl-C or SIGTERM. port: 0 takes a free one. announce: is given the address once it answers.

    in_container: listen on all of a container's interfaces, because its own loopback cannot be published. Raises
    DefinitionError where there are no studies or the extra is missing, StateError where the port is taken.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise DefinitionError("The dashboard needs an extra: pip install 'secateur[dashboard]'") from error
    if not database.is_file():
        raise DefinitionError(
            f"There are no studies yet: {database} does not exist. Start one with: secateur run PIPELINE; --project names "
            "another folder."
        )
    # Optuna's cache keeps finished trials in memory: without it, every poll of an open page reads all of them again.
    storage = get_storage(open_storage(database))
    artifacts = database.parent / ARTIFACTS
    with disk_errors(artifacts / "file"):
        artifacts.mkdir(exist_ok=True)
    app = Corrected(optuna_dashboard.wsgi(storage, FileSystemArtifactStore(artifacts)), storage)
    host = "0.0.0.0" if in_container else "127.0.0.1"  # noqa: S104 # of the container; docker/ publishes it on loopback
    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Silent)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise StateError(
            f"Port {port} cannot be opened: {error.strerror}. Give another one with --port; 0 takes one that is free."
        ) from error
    with server:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            announce(f"http://127.0.0.1:{server.server_port}/dashboard")
            server.serve_forever()
        except KeyboardInterrupt:
            pass  # how a server is stopped
        finally:
            signal.signal(signal.SIGTERM, before)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base class's name
        """Nothing: an open page asks every few seconds."""


class Corrected:
    """The dashboard's WSGI application with feasible best trials and later attributes."""

    def __init__(self, app: Wsgi, storage: BaseStorage) -> None:
        self._app, self._storage = app, storage

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        name = re.sub(r":\d+$", "", environ.get("HTTP_HOST", ""))
        if name not in LOOPBACK:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"'{name}' is not a name of this machine's loopback. Open http://localhost/ instead.\n".encode()]
        study = re.fullmatch(r"/api/studies/(\d+)/?", environ["PATH_INFO"])
        if study and environ["REQUEST_METHOD"] == "GET":
            return self._study(int(study.group(1)), environ, start_response)
        return self._app(environ, start_response)

    def _study(self, study: int, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # The page asks for new trials only (?after=N), but a best one may be older.
        after = re.search(r"\bafter=(\d+)", environ.get("QUERY_STRING", ""))
        answer: list[Any] = []
        body = b"".join(self._app({**environ, "QUERY_STRING": "after=0"}, lambda *a: answer.extend(a)))
        status, headers = answer[:2]
        if status.startswith("200"):
            shown = self._corrected(study, json.loads(body))
            shown["trials"] = shown["trials"][int(after.group(1)) if after else 0 :]
            body = json.dumps(shown).encode()
        headers = [(key, value) for key, value in headers if key.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _corrected(self, study: int, shown: dict[str, Any]) -> dict[str, Any]:
        later = later_attributes(self._storage.get_study_system_attrs(study))
        names: dict[str, bool] = {}
        for number, attributes in later.items():
            if number < len(shown["trials"]):
                listed = [{"key": key, "value": str(value)} for key, value in attributes.items()]
                shown["trials"][number]["user_attrs"] += listed
                names |= {key: not isinstance(value, str) for key, value in attributes.items()}
        shown["union_user_attrs"] += [{"key": key, "sortable": sortable} for key, sortable in names.items()]
        shown["best_trials"] = _best(shown["trials"], shown["directions"])
        return shown


def _best(trials: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> list[Mapping[str, Any]]:
    """The feasible trials that no other feasible one dominates, as the dashboard's own plot of the front has them."""
    sound = [t for t in trials if t["state"] == "Complete" and all(c <= 0 for c in t["constraints"])]
    signs = [1.0 if direction == "minimize" else -1.0 for direction in directions]
    costs = np.array([[s * float(v) for s, v in zip(signs, t["values"], strict=True)] for t in sound])
    return [
        t
        for t, own in zip(sound, costs, strict=True)
        if not ((costs <= own).all(axis=1) & (costs < own).any(axis=1)).any()
    ]
