from __future__ import annotations

import io
import logging

import pytest

from secateur.errors import first_line
from secateur.redaction import Scrubbed, has_credentials, scrubbed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:geheim@host:5000/x failed", "http://***@host:5000/x failed"),
        ("at 'https://me@host/'", "at 'https://***@host/'"),
        ("postgresql+psycopg2://me:ge%40heim@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("url: /api?run=3&token=geheim&x=1 (Caused by", "url: /api?run=3&token=***&x=1 (Caused by"),
        ("http://h/?api_key=geheim and ?X-Amz-Signature=abc", "http://h/?api_key=*** and ?X-Amz-Signature=***"),
        ("{'Authorization': 'Bearer geheim'}", "{'Authorization': 'Bearer ***'}"),
        ("Authorization: Basic bWU6Z2VoZWlt", "Authorization: Basic ***"),
        ("what a host says: mail me@host, ratio 3:4@2", "what a host says: mail me@host, ratio 3:4@2"),
        ("sqlite:////srv/mlruns/mlflow.db", "sqlite:////srv/mlruns/mlflow.db"),
        ("tokens: 512, ?run=3", "tokens: 512, ?run=3"),
    ],
)
def test_secrets_by_their_place(text, expected):
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    "name",
    ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD_PASSWORD", "MY_PASS"],
)  # fmt: skip
def test_values_of_the_environment_wherever_they_stand(name, monkeypatch):
    monkeypatch.setenv(name, "s3/cr&t")
    said = first_line(ValueError("login s3/cr&t, quoted s3%2Fcr%26t"))
    assert said == "login ***, quoted ***"


def test_the_password_of_a_tracking_uri_apart_from_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:ge%40heim@127.0.0.1:1/?token=zeichen")
    assert scrubbed("user me with ge%40heim, decoded ge@heim, zeichen") == "user me with ***, decoded ***, ***"


def test_what_is_no_secret_stays(monkeypatch):
    monkeypatch.setenv("SSH_KEY_FILE", "/keys/mine")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("NO_TOKEN", "true")
    monkeypatch.setenv("A_TOKEN", "ab")
    text = f"/keys/mine false true ab {__file__}"
    assert scrubbed(text) == text


@pytest.mark.parametrize(
    ("url", "carries"),
    [
        ("http://me:geheim@host", True),
        ("http://token@host", True),
        ("http://host/?token=abc", True),
        ("postgresql://me:pw@db/x", True),
        ("postgresql://me@db/x", False),
        ("ssh://git@host/x", False),
        ("http://${USER}:${PW}@host/?token=${TOKEN}", False),
        ("http://me:${PW:-geheim}@host", True),
        ("sqlite:///mlflow.db", False),
        ("https://host:8080/a@b", False),
    ],
)
def test_urls_with_credentials(url, carries):
    assert has_credentials(url) is carries


def test_log_lines_are_without_them_tracebacks_included(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "zeichen")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Scrubbed("%(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    error = ValueError("zeichen refused")
    logger.error("sent %s", "zeichen", exc_info=error)
    assert "zeichen" not in stream.getvalue()
    assert "ValueError: *** refused" in stream.getvalue()
