"""From a definition with a gate to what it says of the knee."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from secateur.definition import RegisterDefinition
from secateur.errors import DeviceLost, EvaluationFailed, ModelError
from secateur.evaluators.sample_scores import Scores
from secateur.pipelines import champion
from secateur.records import SHARE, Candidate, Recovered
from secateur.registry.serving import Serving

BEST = Recovered("f1", 1, Candidate({}), {}, {}, "finalists/f1", 1, 1.0)
SCORES = Scores(4000, per_sample=True, values=np.ones(4000))
REPORT = SimpleNamespace(
    ratio=0.9,
    interval=(0.89, 0.91),
    rounds=8,
    candidate_ms=SimpleNamespace(p50=0.9),
    reference_ms=SimpleNamespace(p50=1.0),
)


class Evaluator:
    device, runtime = "a board", SimpleNamespace(format="onnx")

    def __init__(self, found):
        self.found = found
        self.measuring = SimpleNamespace(latency=self.latency)

    def compared(self, files, role):
        assert (files, role) == ((b"the finalist", b"the version"), "selection")
        if isinstance(self.found, Exception):
            raise self.found
        return {"": (SCORES, SCORES), "night": (SCORES, SCORES), "day": (SCORES, SCORES)}

    def latency(self, network, reference):
        assert (network.onnx, reference) == (b"the finalist", b"the version")
        return REPORT


@pytest.fixture
def gated(tmp_path, monkeypatch):
    def ask(serves, found=None, register=None):
        """What the gate says. serves: the version, or what asking for it raises. found: what comparing raises."""

        def serving(*_):
            if isinstance(serves, Exception):
                raise serves
            return serves

        network = SimpleNamespace(onnx=b"the finalist", file=b"the finalist")
        monkeypatch.setattr(champion, "serving", serving)
        monkeypatch.setattr(champion, "network_of", lambda *_: network)
        written = {"name": "m", "gate": {}} if register is None else register
        definition = RegisterDefinition.model_validate(written)
        prepared = SimpleNamespace(
            definition=SimpleNamespace(
                register_as=definition, as_written=lambda: {"register": definition.model_dump(mode="json")}
            ),
            evaluator=Evaluator(found),
            workload=SimpleNamespace(score_unit=SHARE, score_name="top-1 accuracy"),
        )
        return champion.compared(prepared, SimpleNamespace(state=tmp_path, path=tmp_path), BEST)

    return ask


VERSION = Serving("3", b"the version", None)


def test_every_check_is_kept_with_its_figure(gated):
    said = gated(VERSION)
    assert (said.finalist, said.alias, said.version) == ("f1", "champion", "3")
    assert [c.name for c in said.checks] == ["top-1 accuracy", "slice 'day'", "slice 'night'", "latency", "size"]
    latency, size = said.checks[-2:]
    assert (latency.figure.value, latency.figure.interval, latency.figure.device) == (0.9, (0.89, 0.91), "a board")
    assert size.figure.value == pytest.approx(12 / 11)
    assert [c.passed for c in said.checks] == [True, True, True, True, False], "it is larger by a twelfth"


def test_without_a_gate_nothing_is_said_and_without_a_version_it_passes(gated):
    assert gated(VERSION, register={"name": "m"}) is None
    assert gated(None).passed
    assert gated(None).version is None


@pytest.mark.parametrize(
    ("serves", "found"),
    [(ModelError("its sha256 is another"), None), (VERSION, EvaluationFailed("its inputs are others"))],
)
def test_what_cannot_be_compared_fails_with_the_reason(gated, serves, found):
    said = gated(serves, found)
    assert not said.passed
    assert said.failure == str(found or serves)


def test_a_device_that_is_gone_is_nobodys_failure(gated):
    with pytest.raises(DeviceLost):
        gated(VERSION, DeviceLost("gone"))


def test_what_needs_a_gate_is_refused_without_one():
    for more in ({"promote": "auto"}, {"failed": "leave_out"}):
        with pytest.raises(ValueError, match="need a gate"):
            RegisterDefinition.model_validate({"name": "m", **more})
