"""The embedded workload, and the one of the suites themselves, under the contract."""

from __future__ import annotations

import pytest

from secateur.testing import WorkloadContract, examples
from secateur.workloads import digits


class TestWorkloads(WorkloadContract):
    @pytest.fixture(params=[digits.workload, examples.workload], ids=["digits", "example"])
    def made(self, request):
        return request.param()
