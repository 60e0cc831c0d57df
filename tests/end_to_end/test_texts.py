"""A model of texts with three outputs, lengths that differ and a score of which less is better: checked, run, registered, exported."""

from __future__ import annotations

import mlflow
import numpy as np
import onnx
import onnxruntime
import torch

import secateur
import texts
from secateur.workloads.pytrees import named
from tracking import tracking_at

DEFINITION = {
    "name": "texts",
    "workload": f"{texts.__file__}:workload",  # workers find it there
    "search_space": {"groups": [{"types": ["Linear", "Embedding"], "methods": ["taylor"], "removed": [0.0, 0.7]}]},
    "evaluator": {
        "objectives": {"accuracy": "minimize", "size": "minimize"},
        "constraints": {"accuracy": {"max_rise": 20.0, "before_recovery": 50.0}},
        "waiting": 0,
    },
    "search": {"trials": 8, "fidelities": {"training": []}},
    "recover": {"epochs": 1, "finalists": 1, "batch": 16},
    "register": {"name": "texts"},
}


def test_it_goes_all_the_way(tmp_path):
    checked = secateur.check(DEFINITION, project=tmp_path)
    assert {group.name for group in checked.groups} == {"embed", "up"}
    run = secateur.run(DEFINITION, project=tmp_path, progress=False)
    assert run.best is not None
    record = run.record
    assert record.score_direction == "minimize"
    assert record.dense["search"]["accuracy"].value >= 1
    assert "perplexity, lower is better" in run.report.read_text(encoding="utf-8")
    file = onnx.load(run.onnx())
    assert [entry.name for entry in file.graph.input] == ["input_ids", "attention_mask"]
    assert [entry.name for entry in file.graph.output] == ["logits", "output_attention_mask", "features_0"]

    ids = torch.randint(1, texts.WORDS, (3, texts.LONGEST + 4))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        wanted = named(run.module()(**given), "output")
    arrays = {name: x.numpy() for name, x in given.items()}
    found = onnxruntime.InferenceSession(run.onnx()).run(None, arrays)
    with tracking_at(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"):
        predicted = mlflow.pyfunc.load_model("models:/texts@candidate").predict(arrays)
    for x, other, expected in zip(found, predicted.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "out" / "load.py") in run.export(tmp_path / "out")
