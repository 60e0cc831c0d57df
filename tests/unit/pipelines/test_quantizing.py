"""Int8 twins, with an evaluator that quantizes and measures nothing: what is made of what, once, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nets import network
from secateur.compression.storage import load_compressed, save_compressed
from secateur.errors import EvaluationFailed, ModelError
from secateur.evaluators import Network
from secateur.evaluators.sample_scores import Scores
from secateur.pipelines.exporting import network_of
from secateur.pipelines.quantizing import give_int8, int8_twins
from secateur.pipelines.recovering import Recovery
from secateur.pipelines.state import RunFolder, Stopwatch
from secateur.records import Candidate, CompressedModel, Edit, Measurement, Plan, Quantized, Recovered

SCORES = Scores(2, per_sample=True, values=np.array([0.0, 1.0]))
CANDIDATE = Candidate({"g": (Edit("channels", 2, "l2"),)})


class Evaluator:
    """Counts what it is asked for; `fails` raises at the next call of that name."""

    everything = ("accuracy", "macs")
    runtime = SimpleNamespace(format="onnx")

    def __init__(self, dense):
        self.files, self.dense, self.calls, self.fails = self, dense, [], {}
        self.waiting = SimpleNamespace(spent=0.0)

    def _called(self, name):
        self.calls.append(name)
        if name in self.fails:
            raise self.fails.pop(name)

    def quantized(self, network):
        self._called("quantize")
        return replace(network, onnx=b"int8 of " + network.onnx, quantized=True)

    def deviation(self, network, other, role):
        assert (network.onnx, role) == (b"int8 of " + other.onnx, "selection")
        return Measurement(0.01, "", "measured")

    def measure(self, network, role, names):
        self._called(role)
        assert network.quantized
        return {name: Measurement(7.0, "", "measured") for name in names}

    def score(self, network, role, names, _answer):
        return SimpleNamespace(measurements=self.measure(network, role, names), scores=SCORES)


@pytest.fixture
def case(tmp_path):
    model = network("residual")
    evaluator = Evaluator(Network(model, b"dense", 1000))
    prepared = SimpleNamespace(
        model=model,
        evaluator=evaluator,
        space=SimpleNamespace(dense=lambda: Candidate({})),
        definition=SimpleNamespace(workload=SimpleNamespace(as_written={"factory": "made:made"})),
    )
    run = RunFolder(tmp_path, "r", "p", "d", str(tmp_path), "now", "w", {})
    recovery = Recovery(prepared, run, "cpu", Stopwatch(tmp_path / "seconds.json"))
    folder = run.folder("finalists", "f1-ab")
    save_compressed(CompressedModel(CANDIDATE, Plan(), model), model, {"factory": "made:made"}, folder / "compressed")
    (folder / "model.onnx").write_bytes(b"f1")
    figures = {"macs": Measurement(500.0, "MACs", "computed")}
    tuned = Recovered("f1-ab", 4, CANDIDATE, figures, figures, "finalists/f1-ab", 2, 1.5, losses=(1.0, 0.5))
    failed = replace(tuned, name="f2-cd", measurements={}, failure="it does not export")
    return SimpleNamespace(
        recovery=recovery, evaluator=evaluator, prepared=prepared, run=run, finalists=[tuned, failed]
    )


def twins(case):
    return list(int8_twins(case.recovery, case.finalists))


def test_the_original_and_each_finalist_with_figures_get_a_twin_made_of_their_own_files(case):
    dense, tuned = twins(case)
    assert [(t.name, t.trial, t.candidate, t.precision) for t in (dense, tuned)] == [
        ("dense-int8", None, Candidate({}), "int8"),
        ("f1-ab-int8", 4, CANDIDATE, "int8"),
    ]
    assert (case.run.path / dense.folder / "model.onnx").read_bytes() == b"int8 of dense"
    assert (case.run.path / tuned.folder / "model.onnx").read_bytes() == b"int8 of f1"
    assert tuned.quantized == Quantized("f1-ab", "finalists/f1-ab", Measurement(0.01, "", "measured"))
    assert (tuned.epochs, tuned.seconds, tuned.losses, tuned.searched) == (2, 1.5, (), {})
    assert tuned.measurements["accuracy"].value == 7.0
    assert (case.run.path / tuned.folder / "scores-selection.npz").is_file()
    module = load_compressed(case.run.path / dense.compressed, case.prepared.model)
    assert all(map(torch.equal, module.state_dict().values(), case.prepared.model.state_dict().values()))
    again = network_of(case.prepared, tuned, case.run)
    assert (again.onnx, again.quantized, again.macs) == (b"int8 of f1", True, 7)


def test_what_is_on_disk_is_not_made_again(case):
    give_int8(case.prepared, case.run.folder("finalists", "dense-int8"))
    case.evaluator.fails["selection"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        twins(case)
    first = twins(case)
    assert case.evaluator.calls.count("quantize") == 2
    calls = len(case.evaluator.calls)
    assert twins(case) == first
    assert len(case.evaluator.calls) == calls


def test_one_that_cannot_be_quantized_or_scored_fails_alone_and_stays_so(case):
    case.evaluator.fails = {"quantize": EvaluationFailed("no"), "selection": EvaluationFailed("not finite")}
    found = twins(case)
    assert [t.failure for t in found] == ["no", "not finite"]
    assert twins(case) == found


def test_an_original_that_cannot_be_quantized_ends_the_run_before_its_search(case):
    case.evaluator.fails["quantize"] = EvaluationFailed("ONNX Runtime cannot quantize the model: no")
    with pytest.raises(ModelError, match="No int8 models can be made: ONNX .*: no. Leave 'int8' out of 'quantize'"):
        give_int8(case.prepared, case.run.path)
