"""What a trial says to NNI's manager: ask for the parameters once, report as often as there is news, finish once."""

from __future__ import annotations

import math
from typing import Any

import nni


def parameters() -> dict[str, Any]:
    """What this trial is to evaluate. The first call of a trial."""
    given: dict[str, Any] = nni.get_next_parameter()
    return given


def report(value: float, evaluation: str) -> None:
    """An intermediate result. value: what an assessor judges by, more is better; it may end this process (SIGINT).

    evaluation: what the driver is to receive of a trial that is stopped, as text.
    """
    nni.report_intermediate_result({"default": value, "evaluation": evaluation})


def finish(value: float, evaluation: str) -> None:
    """The final result. value: what the tuner maximises; evaluation: whatever the driver is to receive, as text.

    Raises ValueError for a value that is not a finite number: it would end the tuner, not the trial.
    """
    if not math.isfinite(value):
        raise ValueError(f"a trial's result must be a finite number, not {value}")
    nni.report_final_result({"default": value, "evaluation": evaluation})
