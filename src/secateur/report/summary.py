"""What came of a run, in a few sentences and figures: warnings first."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.formatting import UNKNOWN, kilobytes, outcome, replayed, short, times
from secateur.records import SCORE, SEARCH, ArmResult, Measurement, Recovered, RunRecord, gain
from secateur.report.device import measured_latencies
from secateur.report.table import change, milliseconds

MANY = 0.25
"""Share of disturbed measurements from which on the report warns."""


def headline(record: RunRecord) -> str:
    """What came of it, and before anything else where the search was not worth its while."""
    return " ".join((*_worthless(record), result(record)))


def warnings(record: RunRecord) -> list[str]:
    """Why the search was not worth its time, and what makes its figures uncertain."""
    return [*_worthless(record), *uncertain(record)]


def _worthless(record: RunRecord) -> list[str]:
    whole = next(a for a in record.arms if a.arm == SEARCH)
    lines = [_unbeaten(arm, whole) for arm in record.unbeaten]
    small, best = record.small_dense, knee_of(record)
    if small is not None and best is not None and "accuracy" in small.measurements:
        gap = best.measurements[SCORE].value - small.measurements[SCORE].value
        if gain(gap, record.score_direction) <= 0:
            lines.append(
                f"Trained from scratch, the widths of {best.name} score as well as pruned: pruning gained nothing here."
            )
    return lines


def _unbeaten(arm: ArmResult, whole: ArmResult) -> str:
    reached = f"{arm.arm} (hypervolume {arm.hypervolume:.4f} with {arm.networks} networks)"
    if not arm.comparable or arm.at_equal is None:
        return f"Sanity check: {reached} has reached what the whole search has ({whole.hypervolume:.4f})."
    low, high = arm.at_equal.bounds
    return (
        f"The search did not beat the baseline at equal numbers of networks: {reached}; as many of the search's own have "
        f"{arm.at_equal.value:.4f} (median of {arm.at_equal.samples} draws, 95 % of them {low:.4f} to {high:.4f})."
    )


def uncertain(record: RunRecord) -> list[str]:
    """What makes the figures less certain than they look."""
    lines = []
    against_itself = record.self_comparison
    if against_itself is not None and not _holds_one(against_itself):
        low, high = against_itself.bounds
        lines.append(
            f"The dense model measured against itself is {against_itself.value:.3f}, 95 % interval {low:.3f} to {high:.3f}, which "
            "misses 1: the machine was not steady, so every latency interval of this run is widened by what is missing."
        )
    measured = measured_latencies(record)
    disturbed = sum(bool(m.details.get("disturbed")) for m in measured)
    if measured and disturbed / len(measured) > MANY:
        lines.append(
            f"{disturbed} of {len(measured)} latency measurements ({disturbed / len(measured):.0%}) were made while the machine "
            "was not quiet: their intervals are wider."
        )
    return lines


def _holds_one(measurement: Measurement) -> bool:
    low, high = measurement.bounds
    return low <= 1 <= high


def knee_of(record: RunRecord) -> Recovered | None:
    """The finalist that gets the alias."""
    return next((f for f in record.finalists if f.name == record.knee), None)


def result(record: RunRecord) -> str:
    """How many passed, and what the knee has gained and lost."""
    passed = record.registered
    if not passed:
        return f"None of the {len(record.finalists)} finalists passed the gate."
    count = f"{len(passed)} of {len(record.finalists)} finalists passed the gate."
    best = knee_of(record)
    if best is None:
        return f"{count} Test data contradicts the constraints for each of them: none gets the alias."
    parts = []
    if "latency" in best.measurements:
        parts.append(f"{times(1 / best.measurements['latency'].value)} faster")
    dense = record.dense["selection"]
    if "size" in best.measurements:
        parts.append(f"{times(dense['size'].value / best.measurements['size'].value)} smaller")
    if "download" in record.objectives:
        parts.append(f"{times(dense['download'].value / best.measurements['download'].value)} smaller to download")
    parts.append(f"{change(record, best, 'selection')} of {record.score_name} on selection data")
    said = [f"{count} {best.name}, the knee of the front: {', '.join(parts)}."]
    said += [] if record.comparison is None else [outcome(record.comparison)]
    said += [] if record.replay is None else [replayed(record.replay)]
    return " ".join(said)


@dataclass(frozen=True)
class Card:
    """A large figure. gain: it may be shown as good news; a loss never is."""

    value: str
    text: str
    gain: bool = True


def cards(record: RunRecord) -> list[Card]:
    """The knee's gains, each beside the dense model's figure, and its one loss. A download is one where it is an objective."""
    best = knee_of(record)
    if best is None:
        return []
    dense, gains = record.dense["selection"], []
    if latency := best.measurements.get("latency"):
        low, high = latency.bounds
        beside = milliseconds(latency, "dense_")
        same = (
            f", {milliseconds(latency, '')} ms against {beside} ms in the same measurement" if beside != UNKNOWN else ""
        )
        gains.append(Card(times(1 / latency.value), f"faster (95 %: {times(1 / high)} to {times(1 / low)}){same}"))
    costs = [("size", kilobytes, "smaller file"), ("macs", short, "fewer MACs")]
    if "download" in record.objectives:
        costs.insert(1, ("download", kilobytes, "smaller download, compressed"))
    for name, text, words in costs:
        if name in best.measurements:
            own, base = best.measurements[name].value, dense[name].value
            gains.append(Card(times(base / own), f"{words}: {text(own)} instead of {text(base)}"))
    lost, _, interval = change(record, best, "selection").partition(" (")
    loss = f"{record.score_name} on selection data, against the dense model"
    return [*gains, Card(lost, f"{loss} (95 %: {interval}" if interval else loss, gain=False)]
