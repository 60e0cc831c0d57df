"""What is said of finalists in int8: how far they are from their float32 twins, and whether they are faster."""

from __future__ import annotations

from secateur.formatting import number, times
from secateur.records import Measurement, Recovered, RunRecord


def against_twin(record: RunRecord, finalist: Recovered) -> str | None:
    """How an int8 finalist compares with its float32 twin; None for one in float32."""
    made = finalist.quantized
    if made is None:
        return None
    parts = [f"int8 of {made.of}"]
    if made.deviation is not None:
        parts.append(f"outputs {number(100 * made.deviation.value)} % off (squared error over their spread)")
    pair = latencies(record, finalist)
    if pair is not None:
        parts.append(_speed(*pair))
    return ", ".join(parts)


def latencies(record: RunRecord, finalist: Recovered) -> tuple[Measurement, Measurement] | None:
    """Of an int8 finalist and of its float32 twin, both as ratios to the dense model's; None where one is not known."""
    own, twin = finalist.measurements.get("latency"), record.twin_latency(finalist)
    return None if own is None or twin is None else (own, twin)


def slower(own: Measurement, twin: Measurement) -> bool:
    """Whether one latency is above another one, and their 95 % intervals have nothing in common."""
    return own.bounds[0] > twin.bounds[1]


def _speed(own: Measurement, twin: Measurement) -> str:
    if slower(own, twin):
        return f"slower on this device: {times(own.value / twin.value)} the time"
    if slower(twin, own):
        return f"{times(twin.value / own.value)} faster"
    return "as fast, within what could be measured"
