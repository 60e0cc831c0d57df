"""A real network, where its data and weights are at hand: CIFAR10_DATA and CIFAR10_WEIGHTS, as pipelines/cifar10_resnet20.yaml
takes them."""

from __future__ import annotations

import pytest

from conftest import CIFAR10
from secateur.compression.resolution import resolve
from secateur.compression.saliency import compute_saliencies
from secateur.definition import load_pipeline
from secateur.pipelines.preparation import prepare
from secateur.pipelines.stages import dense_on
from secateur.records import Job

pytestmark = pytest.mark.skipif(
    len(CIFAR10) < 2,
    reason="CIFAR10_DATA and CIFAR10_WEIGHTS do not say where the data and the weights of a ResNet-20 are",
)


def test_a_trained_resnet20_is_cut_without_a_single_export(monkeypatch):
    for name, value in CIFAR10.items():
        monkeypatch.setenv(name, value)
    definition, root = load_pipeline("cifar10_resnet20")
    prepared = prepare(definition, root)
    space = prepared.space
    assert len(space.choices) == 10
    saliencies = compute_saliencies(prepared.model, space.groups, space.methods, prepared.workload)
    dense = dense_on(prepared, "search")["accuracy"].value
    assert dense > 0.9
    mild, strong = (
        prepared.evaluator.evaluate(Job(c, resolve(c, space.groups, saliencies))).measurements
        for c in (space.uniform(f, "l2") for f in (0.25, 0.6))
    )
    assert dense > mild["accuracy"].value > strong["accuracy"].value
    assert mild["accuracy"].value > 0.6, "without recalibration it is near chance"
    assert 1 > mild["latency"].value > strong["latency"].value
    assert prepared.evaluator.files.exports == 0
