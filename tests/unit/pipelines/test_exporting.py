from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from secateur.pipelines.exporting import patterns_in
from secateur.records import Candidate, Edit, Group, Weights

GROUPS = [
    Group(name, "Conv2d", (), 4, (), 16, 16, weights=(Weights(name, (0, 1, 2, 3), inputs, 1),))
    for name, inputs in (("first", 3), ("second", 4), ("third", 4), ("fourth", 4))
]


def file(**weights):
    """One convolution after another, as an exported file has them."""
    stored = [numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight") for name, weight in weights.items()]
    values = ["input", *weights]
    nodes = [helper.make_node("Conv", [values[i], entry.name], [values[i + 1]]) for i, entry in enumerate(stored)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (values[0], values[-1])]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)).SerializeToString()


def test_a_pattern_is_counted_where_the_file_has_it_among_the_layers_that_were_to_have_it():
    """Three channels hold no window of four, and the fourth layer was to have nothing."""
    half = np.tile([1.0, 0.0, 1.0, 0.0], (4, 1))[:, :, None, None]
    whole = np.ones((4, 4, 1, 1))
    edit = (Edit("n_m", "2:4", "magnitude"),)
    candidate = Candidate(
        {"first": edit, "second": edit, "third": edit, "fourth": (Edit("weights", 500, "magnitude"),)}
    )
    found = file(first=half[:, :3], second=half, third=whole, fourth=half)
    assert patterns_in(found, candidate, GROUPS) == {"2:4": (1, 3)}
    assert patterns_in(found, Candidate({"fourth": candidate.edits["fourth"]}), GROUPS) == {}


def test_a_layer_that_the_file_does_not_have_has_no_pattern():
    candidate = Candidate({"second": (Edit("n_m", "1:4", "magnitude"),)})
    assert onnx.load_model_from_string(file(other=np.ones((4, 4, 1, 1))))
    assert patterns_in(file(other=np.ones((4, 4, 1, 1))), candidate, GROUPS) == {"1:4": (0, 1)}
