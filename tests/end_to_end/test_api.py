"""The Python API on whole runs: one that the command line made, and one of a module that lives in this process."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch

import secateur
from conftest import make_workload
from nets import images
from secateur.errors import DefinitionError, WorkloadError

OPTIONS = {
    "search_space": {
        "groups": [{"methods": ["l1", "next_layer"], "multiple_of": 4, "at_least": 4, "removed": [0.0, 0.6]}]
    },
    "evaluator": {
        "objectives": {"accuracy": "maximize", "size": "minimize"},
        "constraints": {"accuracy": {"max_drop": 0.6, "before_recovery": 0.25}},
        "waiting": 0,
    },
    "trials": 6,
    "epochs": 1,
    "set": {"recover.finalists": 1, "recover.batch": 32},
    "progress": False,
}


def test_a_run_of_the_command_line_is_opened(finished, monkeypatch):
    project, _ = finished
    monkeypatch.chdir(project)
    run = secateur.open_run()
    assert run.finished
    assert run.best in run.front
    assert run.best.name in {version.finalist for version in run.versions}
    assert (run.report.is_file(), run.log.is_file()) == (True, True)
    frame = run.to_frame()
    assert list(frame.index) == ["dense", *(f.name for f in run.finalists)]
    assert frame.loc[run.best.name, "accuracy"] == run.best.measurements["accuracy"].value
    assert len(run.to_frame(trials=True)) == len(run.record.trials)
    assert "<table>" in run._repr_html_()
    assert run.plot("size").data
    with pytest.raises(DefinitionError, match="unknown cost 'lateny'. Did you mean 'latency'?"):
        run.plot("lateny")
    with pytest.raises(DefinitionError, match="unknown finalist 'f9'"):
        run.onnx("f9")
    x = images(2)
    session = onnxruntime.InferenceSession(run.onnx().read_bytes())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, run.module()(x).numpy(), atol=1e-4)


def test_a_module_of_a_notebook_is_compressed_and_an_interrupted_run_goes_on(tmp_path):
    made = make_workload()
    model = made.build_model().train()
    before = copy.deepcopy(model.state_dict())
    threads = torch.get_num_threads()
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if progress.stage == "search" and progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        secateur.compress(model, made.data, project=tmp_path, callbacks=interrupt, **OPTIONS)
    assert not secateur.open_run(project=tmp_path).finished
    run = secateur.compress(model, made.data, project=tmp_path, callbacks=seen.append, **OPTIONS)
    assert run.id == secateur.open_run(project=tmp_path).id
    assert len([t for t in run.record.trials if t.same_as is None]) >= 6
    assert {p.stage for p in seen} >= {"check", "search", "recover", "gate"}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert (model.training, torch.get_num_threads()) == (True, threads)
    finalist = run.finalists[0].name
    assert sum(p.numel() for p in run.module(finalist).parameters()) < sum(p.numel() for p in model.parameters())
    with pytest.raises(WorkloadError, match="started from Python by secateur.compress"):
        secateur.open_run(run.id, project=tmp_path).module(finalist)
    assert secateur.open_run(run.id, project=tmp_path).module(finalist, dense=model.eval()) is not None


def test_channels_leave_and_weights_become_zero_in_one_network(tmp_path):
    """Each kind of cut is a demand here, so every candidate has both; the zeros outlast fine-tuning, and the download has them."""
    made = make_workload()
    model = made.build_model()
    rules = [
        {"match": "layer2.0.conv1", "methods": ["l1"], "multiple_of": 4, "at_least": 4, "removed": [0.25, 0.6]},
        {"methods": ["weights/magnitude", "weights/wanda"], "zeros": [0.5, 0.8]},
    ]
    options = OPTIONS | {"search_space": {"groups": rules}}
    options["evaluator"] = OPTIONS["evaluator"] | {"objectives": {"accuracy": "maximize", "download": "minimize"}}
    run = secateur.compress(model, made.data, project=tmp_path, **options)
    for trial in run.record.trials:
        figures, edits = trial.evaluation.measurements, trial.evaluation.candidate.edits
        assert {edit.transform for own in edits.values() for edit in own} == {"channels", "weights"}
        assert figures["nonzero"].value < 0.6 * figures["parameters"].value
    finalist = run.finalists[0]
    module = run.module(finalist.name)
    whole, linear = dict(model.named_parameters()), module.get_submodule("linear").weight
    share = finalist.candidate.kept("linear", len(linear))
    assert int((linear != 0).sum()) == round(share * linear.numel())
    assert module.get_submodule("layer2.0.conv1").weight.shape[0] < whole["layer2.0.conv1.weight"].shape[0]
    assert finalist.epochs == 1
    assert finalist.measurements["download"].value < 0.75 * run.record.dense["selection"]["download"].value
