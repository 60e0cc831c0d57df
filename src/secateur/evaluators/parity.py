"""Whether a runtime says what torch says. No figure counts without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from secateur.agent.runtimes import ROUNDING
from secateur.errors import EvaluationFailed


def check_parity(outputs: NDArray[Any], expected: Tensor, whose: str, rounding: float = ROUNDING) -> None:
    """Raises EvaluationFailed where outputs (n, …) are not torch's.

    whose: of whom the message speaks. rounding: largest difference, relative to the largest output, that is rounding.
    """
    wanted, outputs = (np.asarray(x, np.float64) for x in (expected.numpy(), outputs))  # some are truth values
    gap = float(np.abs(outputs - wanted).max()) if outputs.shape == wanted.shape else float("inf")
    if not gap <= rounding * float(np.abs(wanted).max()):
        raise EvaluationFailed(f"the outputs of {whose} and of the torch module differ by {gap:.2g}")
