"""What a schema cannot judge: threads against the device's cores, the batch against data and memory, the meter's word."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from secateur.definition import EvaluatorDefinition
from secateur.errors import DefinitionError, MeterFailed
from secateur.evaluators.onnx_inputs import MOST_BYTES


@contextmanager
def meter_needed(evaluator: EvaluatorDefinition) -> Iterator[None]:
    """Around a measurement that cannot do without the meter. Raises DefinitionError where `energy_command` gives no joules."""
    try:
        yield
    except MeterFailed as error:
        raise DefinitionError(
            f"{evaluator.where('energy_command')}: {error}. It must print the joules spent so far, a growing number and nothing "
            "else; leave it out where there is no meter."
        ) from error


def check_threads(evaluator: EvaluatorDefinition, cores: int, whose: str) -> None:
    """Raises DefinitionError where a runtime is to have more threads than the device has cores."""
    if evaluator.threads > cores:
        raise DefinitionError(
            f"{evaluator.where('threads')}: {evaluator.threads} threads, but {whose} has {cores} cores: more threads only wait for "
            f"each other. At most {cores}."
        )


def check_batch(evaluator: EvaluatorDefinition, sample: Sequence[Tensor], available: int | None = None) -> None:
    """Raises DefinitionError where a batch is larger than the data, or its inputs than fit easily into memory.

    sample: one sample of each input, (1, …). available: samples of the search data, where there are any.
    """
    batch, where = evaluator.batch, evaluator.where("batch")
    if available is not None and batch > available:
        raise DefinitionError(
            f"{where}: {batch} samples per run, but the search data holds {available}. At most {available}."
        )
    each = sum(x.element_size() * math.prod(x.shape[1:]) for x in sample)
    if batch * each > MOST_BYTES:
        raise DefinitionError(
            f"{where}: {batch} samples per run take {batch * each / 2**20:,.0f} MiB, more than {MOST_BYTES / 2**20:.0f}. "
            f"At most {MOST_BYTES // each:,}."
        )
