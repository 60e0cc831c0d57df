"""What of the registry can be asked without MLflow; the rest is in tests/end_to_end."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from secateur.registry import Target, _from_here, _Publisher


class Client:
    """alias → (version, when its run was started), of the registered model 'm'."""

    def __init__(self, aliases):
        self.aliases = dict(aliases)

    def get_model_version_by_alias(self, name, alias):
        assert name == "m"
        if alias not in self.aliases:
            raise MlflowException("no such alias")
        return SimpleNamespace(tags={"secateur.started": self.aliases[alias][1]})

    def set_registered_model_alias(self, name, alias, version):
        assert name == "m"
        self.aliases[alias] = (version, "now")


@pytest.mark.parametrize(
    ("held", "moves"),
    [({}, True), ({"candidate": ("1", "2026-11-01")}, True), ({"candidate": ("1", "2026-11-03")}, False)],
)
def test_a_run_that_is_flushed_late_does_not_take_the_alias_from_a_newer_one(held, moves):
    publisher = object.__new__(_Publisher)  # its constructor connects
    publisher.client, publisher.target = Client(held), Target("m", "candidate", None)
    publisher.record = SimpleNamespace(started="2026-11-02")
    publisher._point("candidate", "7")
    assert (publisher.client.aliases["candidate"][0] == "7") == moves


def test_the_hint_names_the_project_where_it_is_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _from_here(tmp_path) == ""
    assert _from_here(tmp_path / "other") == f" --project {tmp_path / 'other'}"


def test_the_process_and_its_environment_are_left_as_they_were(monkeypatch, tmp_path):
    import mlflow

    from secateur.registry import _process_as_it_was

    for uri in (f"sqlite:///{tmp_path / 'theirs.db'}", None):
        mlflow.set_tracking_uri(uri)
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
        before = (os.environ.get("MLFLOW_TRACKING_URI"), mlflow.is_tracking_uri_set(), mlflow.get_registry_uri())
        with _process_as_it_was():
            mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'ours.db'}")
            mlflow.set_registry_uri(f"sqlite:///{tmp_path / 'ours.db'}")
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"
        after = (os.environ.get("MLFLOW_TRACKING_URI"), mlflow.is_tracking_uri_set(), mlflow.get_registry_uri())
        assert after == before
        assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ
