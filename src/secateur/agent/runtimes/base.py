"""What a runtime is: a probe, and a way to open a model. Imported on devices: standard library and numpy only."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Batch = Sequence[Array]
"""One array per model input, or per output, each (batch, …), in the order of the model's file."""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Available:
    """The runtime can be used. version: its own, with what else decides its figures (a provider, a GPU)."""

    version: str


@dataclass(frozen=True)
class Unavailable:
    """The runtime cannot be used here; the reason says what to install or do."""

    reason: str


Probe = Union[Available, Unavailable]  # Python 3.9 evaluates it


@dataclass(frozen=True)
class Settings:
    """How a model is opened.

    options: the runtime's own, each one of `Runtime.options`. cache: a folder for what takes long to build (an engine).
    """

    threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None


ROUNDING = 1e-3
"""Largest difference from torch's outputs, relative to the largest of them, that is rounding in float32."""


class RuntimeFailure(Exception):
    """The runtime does not load or does not run this model."""


class Session(ABC):
    """An opened model."""

    @abstractmethod
    def run(self, inputs: Batch) -> Batch:
        """The outputs for one batch. Raises RuntimeFailure."""

    def block(self, batches: Sequence[Batch], first: int, count: int, clock: Clock = time.perf_counter) -> list[float]:
        """Seconds of each of `count` runs in a row; run number n takes batch n modulo their number."""
        times = []
        for number in range(first, first + count):
            batch = batches[number % len(batches)]
            started = clock()
            self.run(batch)
            times.append(clock() - started)
        return times


@dataclass(frozen=True)
class Runtime:
    """An entry of the registry.

    format: what it reads (`onnx`, `tflite`, `pt2`). options: name → allowed values, the default first. extra: of secateur, that
    brings the library; empty where none does. probe: with the options that will be used. open: a model's file → session, or
    RuntimeFailure. in_process: models run in the process that opens them, whose memory and energy are theirs. rounding: with the
    options that will be used, see ROUNDING. skips: transform (`weights`, `n_m`, `blocks`) → when its kernels skip the zeros that
    it leaves, with the options that will be used; zeros of a transform that is absent take as long as other weights.
    """

    summary: str
    format: str
    probe: Callable[[Mapping[str, str]], Probe]
    open: Callable[[Path, Settings], Session]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: str = ""
    in_process: bool = True
    rounding: Callable[[Mapping[str, str]], float] = lambda _: ROUNDING
    skips: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {}

    def chosen(self, options: Mapping[str, str]) -> dict[str, str]:
        """The given options with the defaults of the others."""
        return {**{name: values[0] for name, values in self.options.items()}, **options}


def reason_of(error: BaseException, most: int = 300) -> str:
    """The first line of a foreign error's message, or its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:most] if lines else type(error).__name__


def as_array(value: Any) -> Array:
    """A runtime's output as a numpy array of its own: some hand out a view of memory that the next run overwrites."""
    return np.array(value)
