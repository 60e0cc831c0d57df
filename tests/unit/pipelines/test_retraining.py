from __future__ import annotations

import pytest

from secateur.definition import Override
from secateur.errors import StateError
from secateur.pipelines import retraining
from secateur.pipelines.listener import Listener


@pytest.mark.parametrize("register", ["null", "{name: m}"])
def test_weights_come_from_the_server_that_the_environment_names(tmp_path, monkeypatch, register):
    def asked(_night, _definition, _root, uri):
        raise StateError(f"asked {uri}")

    monkeypatch.setattr(retraining, "weights_of", asked)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    wanted = retraining.Retraining("quick", [Override.parse(f"register={register}")], tmp_path)
    with pytest.raises(StateError, match="asked http://mlflow:5000"):
        retraining.retrain(wanted, Listener())
