"""What a device answers: its own description, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.agent.machine import Machine


@dataclass(frozen=True)
class Times:
    """Milliseconds of single runs."""

    min: float
    p50: float
    p90: float


@dataclass(frozen=True)
class Health:
    """How the device felt, before or after: see `secateur.agent.machine.State`."""

    temperature_c: float | None
    frequency_mhz: float | None
    throttled: bool | None
    throttle_count: int | None


@dataclass(frozen=True)
class Report:
    """One measurement: candidate against reference, alternately, on one device.

    ratio: candidate over reference, with its 95 % interval, which rests on so many opened copies of each. drift: how much
    slower the reference ended than it began. disturbed: the device did not become quiet, so disturbed rounds count as well
    and the interval is wider. waited: seconds spent on rounds that replace disturbed ones. throttled: the device says so, or
    its clock fell while the reference slowed. *_memory_bytes: growth of a process that opens and runs the model, at its peak.
    energy_mj: millijoules of one run, everything that the meter sees included.
    """

    protocol: int
    cores: tuple[int, ...]
    ratio: float
    interval: tuple[float, float]
    rounds: int
    copies: int
    candidate_ms: Times
    reference_ms: Times
    drift: float
    disturbed: bool
    waited: float
    throttled: bool
    before: Health
    after: Health
    candidate_memory_bytes: int | None = None
    reference_memory_bytes: int | None = None
    energy_mj: float | None = None


@dataclass(frozen=True)
class Hello:
    """Who answers. machine: see `secateur.agent.machine`. version: of the runtime there. energy: whether RAPL can be read."""

    machine: Machine
    version: str
    energy: bool

    def fingerprint(self, runtime: str, threads: int, options: Mapping[str, str]) -> str:
        """Processor, cores, system, runtime with version and options, threads: figures compare only where these agree."""
        machine = self.machine
        chosen = "".join(f", {name} {value}" for name, value in sorted(options.items()))
        return (
            f"{machine.processor}, {machine.cores} cores, {machine.system} {machine.architecture}"
            + (f", governor {machine.governor}" if machine.governor else "")
            + f", {runtime} {self.version}{chosen}, {threads} thread{'s' if threads > 1 else ''}"
            + (", EMULATED" if machine.emulated else "")
        )
