"""Models of `transformers`: each is cut right, is as small as was said, learns, and runs in ONNX Runtime."""

from __future__ import annotations

import functools

import pytest

from architectures import Subject

pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[transformers]'")
from transformer_zoo import ZOO  # it needs transformers

pytestmark = pytest.mark.slow
subject = functools.cache(lambda name: Subject(ZOO[name]))


@pytest.mark.parametrize("name", ZOO)
def test_random_candidates_compute_what_the_original_does_with_zeros(name):
    subject(name).check_cuts(4)


@pytest.mark.parametrize("name", ZOO)
def test_all_of_its_parameters_are_within_reach(name):
    assert subject(name).reach[0] >= 0.9, subject(name).left_whole


@pytest.mark.parametrize("name", ZOO)
def test_half_of_it_learns(name):
    subject(name).check_training()


@pytest.mark.parametrize("name", ZOO)
def test_onnx_runtime_says_what_torch_says_of_half_of_it(name):
    subject(name).check_onnx()
