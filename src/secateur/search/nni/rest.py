"""The manager's REST interface, on loopback."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

SECONDS = 20.0
"""That a manager under load may need for an answer."""

# Proxies of the environment are for other hosts.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Rest:
    """Requests to the manager at a port. All raise OSError where it does not answer (urllib's errors are of that kind)."""

    def __init__(self, port: int, seconds: float = SECONDS) -> None:
        """seconds: until a request is given up."""
        self.url = f"http://127.0.0.1:{port}"
        self.port, self._seconds = port, seconds

    def get(self, path: str) -> Any:
        """A JSON document."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """A text as it is."""
        return self._send("GET", path, None)

    def post(self, path: str, document: Any) -> None:
        """Send a JSON document."""
        self._send("POST", path, json.dumps(document).encode())

    def _send(self, method: str, path: str, body: bytes | None) -> str:
        request = urllib.request.Request(  # noqa: S310 # loopback
            f"{self.url}/api/v1/nni/{path}", data=body, method=method, headers={"Content-Type": "application/json"}
        )
        with _OPENER.open(request, timeout=self._seconds) as answer:
            return str(answer.read().decode(errors="replace"))
