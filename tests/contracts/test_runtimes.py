"""Every runtime of the registry under the contract. A new one passes by being in it; one that is not here is skipped."""

from __future__ import annotations

import pytest

import trtexec
from secateur.agent.runtimes import RUNTIMES, Available, Unavailable
from secateur.testing import RuntimeContract

ELSEWHERE = {
    "litert": "its converter does not install beside the pinned set: an environment of its own runs this suite",
    "tensorrt": "it needs an NVIDIA GPU; in the contract, a stand-in for trtexec answers",
}
"""Runtimes that the dev group does not install."""


class TestRuntimes(RuntimeContract):
    @pytest.fixture(params=RUNTIMES)
    def runtime_name(self, request, tmp_path, monkeypatch):
        if request.param == "tensorrt" and isinstance(RUNTIMES[request.param].probe({}), Unavailable):
            trtexec.install(tmp_path / "bin", monkeypatch)
        return request.param


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_tested_set_has_it(name):
    found = RUNTIMES[name].probe(RUNTIMES[name].chosen({}))
    if name in ELSEWHERE and isinstance(found, Unavailable):
        pytest.skip(f"{ELSEWHERE[name]} ({found.reason})")
    assert isinstance(found, Available), "the dev group installs every runtime that this machine can have"
