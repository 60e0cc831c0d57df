from __future__ import annotations

import pytest

from secateur.definition import EvaluatorDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.preparation import _check_batch


def test_batches_that_no_device_takes_are_refused_before_they_are_made(workload):
    """768 bytes a sample: 65,536 of them are 0.2 GB, and inputs of 300 times that size are too much."""
    objectives = {"accuracy": "maximize"}
    _check_batch(EvaluatorDefinition(objectives=objectives, batch=65_536), workload)
    large = type(workload)(**{**vars(workload), "example_inputs": (workload.example_inputs[0].repeat(1, 100, 1, 3),)})
    with pytest.raises(
        DefinitionError, match=r"of inputs, which every measurement would send; this model's may have 2,\d+ samples"
    ):
        _check_batch(EvaluatorDefinition(objectives=objectives, batch=65_536), large)
    with pytest.raises(ValueError, match="less than or equal to 65536"):
        EvaluatorDefinition(objectives=objectives, batch=1_000_000)
