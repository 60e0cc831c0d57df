"""Every criterion of the registry under the contract. A new one passes by being in it."""

from __future__ import annotations

import pytest

from secateur.compression.criteria import METHODS
from secateur.compression.criteria.blocks import BLOCK_METHODS
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.testing import BlockCriterionContract, CriterionContract, WeightCriterionContract


def _installed(extra: str) -> None:
    if extra:
        pytest.importorskip(extra, reason=f"the extra {extra} is not installed")


class TestCriteria(CriterionContract):
    @pytest.fixture(params=METHODS)
    def criterion_name(self, request):
        _installed(METHODS[request.param].extra)
        return request.param


class TestWeightCriteria(WeightCriterionContract):
    @pytest.fixture(params=WEIGHT_METHODS)
    def criterion_name(self, request):
        _installed(WEIGHT_METHODS[request.param].extra)
        return request.param


class TestBlockCriteria(BlockCriterionContract):
    @pytest.fixture(params=BLOCK_METHODS)
    def criterion_name(self, request):
        return request.param
