"""Every sampler of the registry under the contract. A new one passes by being in it."""

from __future__ import annotations

import pytest

from secateur.search.samplers import SAMPLERS
from secateur.testing import SamplerContract


class TestSamplers(SamplerContract):
    @pytest.fixture(params=SAMPLERS)
    def sampler(self, request):
        return request.param
