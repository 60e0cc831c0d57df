"""A gateway before an HTTP server that fails at one request, so that a test can end a conversation anywhere in it."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["dies", "dies having done it", "falls silent", "loses an answer"]


class Gateway:
    """Passes requests on to a server, until one that `fails` says so.

    It `dies` before that request or having done it, and takes no more; it `falls silent`: takes every further request and never
    answers; or it only `loses an answer`. seen: the requests so far. mend: as if nothing had been.
    """

    def __init__(self, server: str, fails: Callable[[int, str], bool], kind: Kind) -> None:
        self.seen: list[str] = []
        self._server, self._fails, self._kind = urlsplit(server), fails, kind
        self._failed, self._over, self._lock = False, threading.Event(), threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the interface
                gateway._take(self)

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 # the interface

            def log_message(self, *_: object) -> None:
                pass

        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._listener.server_address[1]}"
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()

    def mend(self) -> None:
        self._failed, self._fails = False, lambda *_: False

    def close(self) -> None:
        self._over.set()
        self._listener.shutdown()
        self._listener.server_close()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        request = f"{handler.command} {handler.path}"
        with self._lock:
            gone = self._failed
            if not gone:
                self.seen.append(request)
                self._failed = self._fails(len(self.seen), request)
            now = self._failed and not gone
            if now and self._kind == "loses an answer":
                self.mend()
        if not gone and not (now and self._kind == "dies"):
            status, headers, content = self._passed_on(handler, body)
            if not now:
                handler.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        handler.send_header(name, value)
                handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                handler.wfile.write(content)
                return
        if self._kind == "falls silent":
            self._over.wait()
        handler.close_connection = True

    def _passed_on(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._server.hostname or "", self._server.port)
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()


@contextlib.contextmanager
def gateway(
    server: str, fails: Callable[[int, str], bool] = lambda *_: False, kind: Kind = "dies"
) -> Iterator[Gateway]:
    opened = Gateway(server, fails, kind)
    try:
        yield opened
    finally:
        opened.close()
