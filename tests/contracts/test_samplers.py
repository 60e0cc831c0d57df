"""Every sampler of the registry under the contract. A new one passes by being in it."""

from __future__ import annotations

import pytest

from secateur.search.samplers import SAMPLERS
from secateur.testing import SamplerContract

STORED = (
    SamplerContract.test_a_reopened_study_goes_on_and_does_not_repeat_its_first_asks,
    SamplerContract.test_failed_infeasible_and_rejected_trials_do_not_stop_it,
)
"""What a sampler notes in its trials goes through SQLite and back."""


class TestSamplers(SamplerContract):
    @pytest.fixture(params=SAMPLERS)
    def sampler(self, request):
        return request.param

    @pytest.fixture(autouse=True)
    def _elsewhere_in_memory(self, request):
        if request.function.__func__ not in STORED:
            request.getfixturevalue("in_memory")
