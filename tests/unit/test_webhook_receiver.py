"""The receiver in docs/examples, sent to by MLflow's own delivery."""

from __future__ import annotations

import runpy
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import pytest
from cryptography.fernet import Fernet

from conftest import REPOSITORY
from secateur.registry import DATABASE, open_embedded
from waiting import until

SECRET = "a secret of the test's"


@pytest.fixture
def receiver(monkeypatch):
    """Where it listens, and what it was told of."""
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    module = runpy.run_path(str(REPOSITORY / "docs" / "examples" / "webhook_receiver.py"))
    told = []
    module["Receiver"].do_POST.__globals__["serve"] = lambda *what: told.append(what)
    monkeypatch.setattr(module["Receiver"], "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), module["Receiver"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", told
    server.shutdown()
    server.server_close()


def test_it_hears_of_a_new_champion_and_of_nothing_else(receiver, tmp_path, monkeypatch):
    address, told = receiver
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", Fernet.generate_key().decode())
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlflow.webhooks.delivery import deliver_webhook

    open_embedded(tmp_path)
    store = SqlAlchemyStore(f"sqlite:///{tmp_path / DATABASE}")
    alias = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)
    made = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)
    store.create_webhook("serving", address, [alias, made], secret=SECRET)
    deliver_webhook(
        event=made,
        payload={"name": "m", "version": "1", "source": "", "run_id": None, "tags": {}, "description": ""},
        store=store,
    )
    for name, version in (("candidate", "2"), ("champion", "3")):
        deliver_webhook(event=alias, payload={"name": "m", "alias": name, "version": version}, store=store)
    until(lambda: told, "the receiver hears of it")
    assert told == [("m", "3")]


@pytest.mark.parametrize(
    "headers", [{}, {"X-MLflow-Timestamp": "1", "X-MLflow-Signature": "v1,abc", "X-MLflow-Delivery-Id": "1"}]
)
def test_what_is_not_signed_or_old_is_refused(receiver, headers):
    address, told = receiver
    body = b'{"entity": "model_version_alias", "action": "created", "data": {"name": "m", "alias": "champion", "version": "9"}}'
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(address, body, headers))
    assert told == []
