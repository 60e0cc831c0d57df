"""Every criterion of the registry under the contract. A new one passes by being in it."""

from __future__ import annotations

import functools

import pytest

from secateur.compression.criteria import METHODS
from secateur.compression.criteria.blocks import BLOCK_METHODS
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.compression.groups import find_groups
from secateur.testing import BlockCriterionContract, CriterionContract, WeightCriterionContract, examples

workload = functools.cache(examples.workload)
groups_found = functools.cache(lambda: find_groups(workload().build_model(), workload().example_inputs))


class OfOneNetwork:
    """No criterion changes the network, which is one of the tests: it is made once for all of them, and so are its groups."""

    @pytest.fixture
    def example(self):
        return workload()


def _installed(extra: str) -> None:
    if extra:
        pytest.importorskip(extra, reason=f"the extra {extra} is not installed")


class TestCriteria(OfOneNetwork, CriterionContract):
    @pytest.fixture(params=METHODS)
    def criterion_name(self, request):
        _installed(METHODS[request.param].extra)
        return request.param

    @pytest.fixture
    def found(self):
        return groups_found()


class TestWeightCriteria(OfOneNetwork, WeightCriterionContract):
    @pytest.fixture(params=WEIGHT_METHODS)
    def criterion_name(self, request):
        _installed(WEIGHT_METHODS[request.param].extra)
        return request.param

    @pytest.fixture
    def groups(self):
        return (*groups_found().groups, *groups_found().fixed)


class TestBlockCriteria(OfOneNetwork, BlockCriterionContract):
    @pytest.fixture(params=BLOCK_METHODS)
    def criterion_name(self, request):
        return request.param

    @pytest.fixture
    def blocks(self):
        return groups_found().blocks
