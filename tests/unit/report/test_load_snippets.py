"""The lines to copy that load what came out of a run."""

from __future__ import annotations

from dataclasses import replace

from finished import RECORD
from secateur.records import Version
from secateur.report.loading import snippets

VERSION = Version("digits-cnn", "7", ("candidate",), "mlflow-run-1", "00", "f1-aa")


def test_the_model_is_loaded_from_where_it_was_registered():
    """The report names no server: an address may hold a secret."""

    def code(server):
        definition = {**RECORD.definition, "register": {"name": "digits-cnn", "tracking_uri": server}}
        found = {s.title: s.code for s in snippets(replace(RECORD, definition=definition), [VERSION])}
        for title, text in found.items():
            compile(text, title, "exec")
        return found["MLflow"]

    assert "mlflow.example" not in code("http://mlflow.example:5000")
    assert "set_tracking_uri" not in code("http://mlflow.example:5000")
    embedded = code(None)
    assert 'set_tracking_uri("sqlite:///mlruns/mlflow.db")' in embedded
    assert "without the next line where MLFLOW_TRACKING_URI names a server" in embedded
    assert 'load_model("models:/digits-cnn@candidate")' in embedded
