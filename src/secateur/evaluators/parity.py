"""Whether a runtime says what torch says. No figure counts without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from secateur.agent.runtimes import ROUNDING, Array
from secateur.compression.checks import disagreement
from secateur.errors import EvaluationFailed
from secateur.workloads.pytrees import OUTPUT, PyTree, named

TORCH = "the torch module"


def check_parity(
    outputs: Sequence[Array], expected: PyTree, whose: str, rounding: float = ROUNDING, than: str = TORCH
) -> None:
    """Raises EvaluationFailed where one of the outputs, each (n, …), is not what is expected.

    whose, than: of whom the message speaks, and with whom they are compared. rounding: largest difference, relative to the largest
    entry of an output, that is rounding.
    """
    names = named(expected, OUTPUT)
    if len(outputs) != len(names):
        raise EvaluationFailed(f"{whose} has {len(outputs)} outputs, {than} {len(names)}")
    for actual, (name, wanted) in zip(outputs, names.items(), strict=True):
        gap = disagreement(torch.from_numpy(np.array(actual)), wanted, rounding)
        if gap is not None:
            which = "outputs" if len(names) == 1 else f"outputs '{name}'"
            raise EvaluationFailed(f"the {which} of {whose} and of {than} differ by {gap:.2g}")
