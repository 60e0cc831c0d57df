"""Receives MLflow's webhooks and says which version serves: `WEBHOOK_SECRET=… python webhook_receiver.py [PORT]`.

What is not signed with the secret, or older than five minutes, is refused. Replace `serve` by what a new champion should lead to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FRESH = 300.0
"""Seconds that a message is accepted for, so that nobody can send it again later."""


def signed(headers: Any, body: bytes, secret: str) -> bool:
    """Whether a message comes from the server that knows the secret, and is fresh."""
    sent = headers.get("X-MLflow-Timestamp", "")
    if not sent.isdigit() or abs(time.time() - int(sent)) > FRESH:
        return False
    content = f"{headers.get('X-MLflow-Delivery-Id')}.{sent}.".encode() + body
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    return hmac.compare_digest(headers.get("X-MLflow-Signature", "").encode(), expected)


def serve(name: str, version: str) -> None:
    """A version has become the champion."""
    sys.stdout.write(f"{name} version {version} serves\n")
    sys.stdout.flush()


class Receiver(BaseHTTPRequestHandler):
    """One message: 204 where it was taken, 401 where it is not the server's."""

    def do_POST(self) -> None:
        """Called for each message."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        genuine = signed(self.headers, body, os.environ["WEBHOOK_SECRET"])
        self.send_response(204 if genuine else 401)
        self.end_headers()
        message = json.loads(body) if genuine else {}
        data = message.get("data", {})
        if (message.get("entity"), message.get("action"), data.get("alias")) == (
            "model_version_alias",
            "created",
            "champion",
        ):
            serve(data["name"], data["version"])


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
