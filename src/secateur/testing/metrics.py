"""What every metric promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from secateur.evaluators.metrics import METRICS, Context, Metric
from secateur.evaluators.model_files import Network
from secateur.testing.examples import images, network, workload


class MetricContract:
    """Subclass it, and set `name` (or override it as a fixture) to the metric's name in the registry.

    It is measured without a device. A metric that needs one overrides the fixture `context`.
    """

    name: str

    @pytest.fixture
    def metric_name(self) -> str:
        """The name."""
        return self.name

    @pytest.fixture
    def metric(self, metric_name: str) -> Metric:
        """The entry of the registry."""
        return METRICS[metric_name]

    @pytest.fixture
    def context(self) -> Context:
        """What one evaluation of a network has found; the dense outputs differ a little from its own."""
        model, x = network(), images(60)
        with torch.no_grad():
            outputs = model(x)
        targets = outputs.argmax(1)
        targets[::7] = (targets[::7] + 1) % outputs.shape[1]
        return Context(
            workload(), Network(model, b"x" * 1000, 12_345), outputs, outputs * 1.01, targets, "a host", None
        )

    def test_one_finite_figure_that_says_where_it_comes_from(self, metric: Metric, context: Context) -> None:
        found = metric.measure(context)
        assert math.isfinite(found.value)
        assert found.provenance in ("measured", "predicted", "computed", "emulated")
        if found.interval is not None:
            low, high = found.interval
            assert low <= found.value <= high

    def test_the_same_evaluation_gives_the_same_figure(self, metric: Metric, context: Context) -> None:
        first, second = metric.measure(context), metric.measure(context)
        assert (first.value, first.unit, first.interval) == (second.value, second.unit, second.interval)

    def test_what_it_looks_at_is_left_as_it_was(self, metric: Metric, context: Context) -> None:
        kept = replace(context, outputs=context.outputs.clone(), targets=context.targets.clone())
        metric.measure(context)
        assert torch.equal(context.outputs, kept.outputs)
        assert torch.equal(context.targets, kept.targets)

    def test_it_says_what_it_is_and_which_way_is_better(self, metric: Metric) -> None:
        assert metric.summary
        assert metric.direction in ("maximize", "minimize")
