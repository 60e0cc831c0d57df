"""The architectures that people compress: every one is cut right, is as small as was said, learns, and runs in ONNX Runtime."""

from __future__ import annotations

import functools

import pytest

from architectures import Subject
from zoo import ZOO

subject = functools.cache(lambda name: Subject(ZOO[name]))

LEAST = {
    "MLP-Mixer": 0.85,
    "ShuffleNet": 0.85,
    "convolutions and GRU, two layers, both directions": 0.7,
    "`nn.MultiheadAttention`, cross attention": 0.85,
}
"""Networks with less than 90 % of their parameters and MACs within reach; docs/architectures.md says why."""


@pytest.mark.parametrize("name", ZOO)
def test_random_candidates_compute_what_the_original_does_with_zeros(name):
    subject(name).check_cuts(4)


@pytest.mark.parametrize("name", ZOO)
def test_nearly_all_of_it_is_within_reach(name):
    assert min(subject(name).reach) >= LEAST.get(name, 0.9), subject(name).left_whole


@pytest.mark.parametrize("name", ZOO)
def test_half_of_it_learns(name):
    subject(name).check_training()


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_onnx_runtime_says_what_torch_says_of_half_of_it(name):
    subject(name).check_onnx()
