"""Every metric of the registry that needs no device under the contract; what comes from devices is tested with them."""

from __future__ import annotations

import pytest

from secateur.evaluators import METRICS
from secateur.evaluators.on_device import FIGURES, SAMPLED
from secateur.testing import MetricContract


class TestMetrics(MetricContract):
    @pytest.fixture(params=[name for name in METRICS if name not in (*FIGURES, SAMPLED)])
    def metric_name(self, request):
        return request.param
