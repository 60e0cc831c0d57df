from __future__ import annotations

import pytest

import finished
from secateur.definition import Override
from secateur.errors import StateError
from secateur.pipelines import retraining
from secateur.pipelines.listener import Listener
from secateur.pipelines.nights import Night
from secateur.pipelines.outcome import Outcome


def test_a_night_whose_finalists_test_data_refuse_is_no_success(tmp_path):
    refused = finished.make(finished.RECORD.finalists, None)
    outcome = Outcome(refused, tmp_path, tmp_path / "report.html", [])
    result = retraining._result(Night(tmp_path / "k"), outcome, "nothing serves yet", "w")
    assert (result["status"], result["exit_code"]) == ("nothing_better", 3)
    assert result["message"].startswith("Test data refuse every finalist")


@pytest.mark.parametrize("register", ["null", "{name: m}"])
def test_weights_come_from_the_server_that_the_environment_names(tmp_path, monkeypatch, register):
    def asked(_night, _definition, _root, uri):
        raise StateError(f"asked {uri}")

    monkeypatch.setattr(retraining, "weights_of", asked)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    wanted = retraining.Retraining("quick", [Override.parse(f"register={register}")], tmp_path)
    with pytest.raises(StateError, match="asked http://mlflow:5000"):
        retraining.retrain(wanted, Listener())
