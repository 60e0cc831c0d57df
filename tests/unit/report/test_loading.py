"""The lines to copy that load what came out of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finished import RECORD
from secateur.records import Version
from secateur.report.loading import snippets

VERSION = Version("digits-cnn", "7", ("candidate",), "mlflow-run-1", "00", "f1-aa")


@pytest.mark.parametrize(
    ("server", "address"),
    [("http://mlflow.example:5000", "http://mlflow.example:5000"), (None, "sqlite:///mlruns/mlflow.db")],
)
def test_the_model_is_loaded_from_where_it_was_registered(server, address):
    definition = {**RECORD.definition, "register": {"name": "digits-cnn", "tracking_uri": server}}
    (code,) = (s.code for s in snippets(replace(RECORD, definition=definition), [VERSION]) if s.title == "MLflow")
    assert f'mlflow.set_tracking_uri("{address}")' in code
    assert ("MLFLOW_TRACKING_URI" in code) == (server is None), "which a definition without an address leaves to it"
    assert 'load_model("models:/digits-cnn@candidate")' in code
    for snippet in snippets(RECORD, [VERSION]):
        compile(snippet.code, snippet.title, "exec")
