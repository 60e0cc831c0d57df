from __future__ import annotations

import pytest

from secateur.compression.transforms import TRANSFORMS
from secateur.report.zeros import MASKS, no_kernel


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert", "torch", "tensorrt"])
def test_no_runtime_skips_zeros_in_float32(runtime):
    found = no_kernel({"weights", "n_m", "channels"}, runtime, {})
    assert found == (
        f"No kernel of {runtime} skips the zeros of single weights (`weights`), N:M patterns (`n_m`): they make the compressed "
        "download smaller and nothing faster."
    )


def test_tensorrt_skips_one_pattern_in_half_precision_and_says_where():
    half = {"precision": "float16"}
    found = no_kernel({"n_m"}, "tensorrt", half)
    assert found.startswith("tensorrt skips the zeros of N:M patterns (`n_m`) if they are 2:4, on a GPU of")
    assert "No kernel" not in found
    both = no_kernel({"n_m", "weights"}, "tensorrt", half)
    assert both.startswith(found)
    assert "No kernel of tensorrt skips the zeros of single weights (`weights`):" in both


def test_a_provider_of_onnx_runtime_changes_nothing():
    """Its TensorRT provider would have to be asked for sparse kernels, and is not."""
    assert "No kernel" in no_kernel({"n_m"}, "onnxruntime", {"provider": "tensorrt"})


@pytest.mark.parametrize(("transforms", "runtime"), [((), "torch"), (("channels",), "torch"), (("n_m",), "unknown")])
def test_where_there_is_nothing_to_say(transforms, runtime):
    assert no_kernel(transforms, runtime, {}) is None


def test_every_transform_that_leaves_zeros_is_told_apart():
    assert set(MASKS) == {name for name, transform in TRANSFORMS.items() if transform.stage == "pattern"}
