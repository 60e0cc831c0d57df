"""How figures are written for people: scores in their unit, ratios, bytes and counts.

A workload says what its score is (`Workload.score_unit`): a share is shown in per cent and its differences in points; anything
else is a plain number with its unit behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from secateur.records import SHARE, Comparison, GatePath, Measurement, Replay

UNKNOWN = "–"


def number(value: float) -> str:
    """A number on its own: bytes and counts in full, `533,488`; anything else to four digits, `0.2996`."""
    return f"{value:,.0f}" if abs(value) >= 1000 or (value == round(value) and abs(value) >= 10) else f"{value:.4g}"


def interval(measurement: Measurement) -> str:
    """A figure of any kind with its 95 % interval where it has one: `0.588 (0.581 to 0.596)`."""
    bounds = "" if measurement.interval is None else " ({} to {})".format(*map(number, measurement.interval))
    return f"{number(measurement.value)}{bounds}"


def score(value: float, unit: str) -> str:
    """A score: `91.8 %`, or `-3.21 dB`."""
    return f"{100 * value:.1f} %" if unit == SHARE else _with(f"{value:.4g}", unit)


def score_with_interval(measurement: Measurement | None, unit: str) -> str:
    """A score with half its 95 % interval: `91.8 % ± 0.9`, or `-3.21 ± 0.05 dB`."""
    if measurement is None:
        return UNKNOWN
    half = _half(measurement)
    if unit == SHARE:
        return f"{score(measurement.value, unit)} ± {100 * half:.1f}"
    return _with(f"{measurement.value:.4g} ± {half:.2g}", unit)


def difference(value: float, unit: str) -> str:
    """A difference of two scores: `-0.8 points`, or `+0.12 dB`."""
    return f"{100 * value:+.1f} points" if unit == SHARE else _with(f"{value:+.4g}", unit)


def difference_with_interval(measurement: Measurement, unit: str) -> str:
    """A difference of two scores with its 95 % interval, which need not be symmetric: `-0.8 points (-2.1 to +0.4)`."""
    low, high = measurement.bounds
    factor, form = (100, "+.1f") if unit == SHARE else (1, "+.3g")
    return f"{difference(measurement.value, unit)} ({factor * low:{form}} to {factor * high:{form}})"


def amount(value: float, unit: str) -> str:
    """An unsigned difference of scores, such as a loss that is allowed: `5.0 points`, or `0.12 dB`."""
    return f"{100 * value:.1f} points" if unit == SHARE else _with(f"{value:.4g}", unit)


def compared(figure: Measurement, unit: str) -> str:
    """What a finalist is beside the version that serves: a difference of scores, or a ratio: `1.02 (1.01 to 1.03) of …`."""
    if figure.unit == "score":
        return difference_with_interval(figure, unit)
    interval = "" if figure.interval is None else " ({:.3f} to {:.3f})".format(*figure.interval)
    return f"{figure.value:.3f}{interval} {figure.unit}"


def outcome(comparison: Comparison) -> str:
    """What the gate says: `f1-aa has passed the gate against @champion, version 3.`, or by what it has failed."""
    if comparison.version is None:
        return f"Nobody is @{comparison.alias}, so {comparison.finalist} had nothing to be compared with."
    against = f"the gate against @{comparison.alias}, version {comparison.version}"
    if comparison.failure is not None:
        return f"{comparison.finalist} has failed {against}: {comparison.failure.rstrip('.')}."
    failed = [check.name for check in comparison.checks if not check.passed]
    return f"{comparison.finalist} has {'failed' if failed else 'passed'} {against}{': ' if failed else ''}{', '.join(failed)}."


def replayed(replay: Replay) -> str:
    """What became of the choice that serves on the new weights: `The choice of … was tried first on the new weights: …`."""
    moved = (
        "could not be compared"
        if replay.moved is None
        else f"moved by {replay.moved:.2f}, {replay.threshold:.2f} allowed"
    )
    stands = f"it stands, without a search (sensitivity profile {moved})"
    became = stands if replay.refused is None else f"a search followed, since {replay.refused.rstrip('.')}"
    return f"The choice of {replay.precedent.of} was tried first on the new weights: {became}."


def score_ticks(unit: str) -> str:
    """How an axis of scores writes its numbers, in d3's format."""
    return ".0%" if unit == SHARE else ""


def ratio(measurement: Measurement | None) -> str:
    """A ratio to the dense model with half its interval."""
    return UNKNOWN if measurement is None else f"{measurement.value:.3f} ± {_half(measurement):.3f}"


def of_dense(measurement: Measurement | None, dense: Measurement | None, text: Callable[[float], str]) -> str:
    """A figure and its share of the dense model's."""
    if measurement is None or dense is None:
        return UNKNOWN
    return f"{text(measurement.value)} ({measurement.value / dense.value:.0%})"


def kilobytes(value: float) -> str:
    """Bytes, for people."""
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"  # a megabyte


def short(value: float) -> str:
    """A count, for people."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def times(factor: float) -> str:
    """How many times faster or smaller."""
    return f"{factor:.2f}×"


def duration(seconds: float) -> str:
    """Seconds, for people: `0.4 s`, `52 s`, `7 min 53 s`, `2 h 05 min`."""
    if seconds < 9.95:  # below ten seconds a tenth is worth showing
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:  # 119 s are read as easily as 1 min 59 s
        return f"{round(seconds)} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _half(measurement: Measurement) -> float:
    low, high = measurement.bounds
    return (high - low) / 2


def _with(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text


def patterns(found: Mapping[str, tuple[int, int]]) -> str:
    """`2:4 as sparse tensor cores read it: 8 of 10 layers.`, for each pattern N:M; empty without any. found: as in `Recovered`."""
    return " ".join(
        f"{name} as sparse tensor cores read it: {has} of {of} layers." for name, (has, of) in found.items()
    )


def path_name(path: GatePath, paths: Sequence[GatePath]) -> str:
    """Which gates are closed on one of a network's paths; the last of them closes all."""
    if not path.closed:
        return "every gate open"
    return "every gate closed" if path == paths[-1] else f"{path.closed[0]} closed"


def gated_costs(paths: Sequence[GatePath]) -> str:
    """That the figures of a network with gates are averages, and what its ends take; empty without gates."""
    if not paths:
        return ""
    ends = (
        f"{path_name(path, paths)}: {short(path.macs)} MACs"
        + (f", latency {ratio(path.latency)} of dense" if path.latency else "")
        for path in (paths[0], paths[-1])
    )
    return f"gates choose the blocks of each sample: latency and MACs are averages over calibration samples; {'; '.join(ends)}"
