"""Every transform of the registry under the contract. A new one passes by being in it."""

from __future__ import annotations

import pytest

from secateur.compression.transforms import TRANSFORMS
from secateur.testing import TransformContract


class TestTransforms(TransformContract):
    @pytest.fixture(params=TRANSFORMS)
    def transform_name(self, request):
        return request.param
