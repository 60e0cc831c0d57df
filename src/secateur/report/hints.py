"""Why a model is not faster: what its widths, its layers and its measurements show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.formatting import patterns, times
from secateur.records import GroupSummary, Recovered, RunRecord
from secateur.report.int8 import latencies, slower
from secateur.report.summary import knee_of
from secateur.report.zeros import MASKS, no_kernel

BEHIND = 0.05
"""Share by which latency must lag behind MACs to be worth a hint."""
TINY_MS = 1.0
"""Milliseconds below which fixed costs per operator are a large part of a run."""
HEAVY, WHOLE = 0.10, 0.75
"""A group is a bottleneck that was spared: it touches this share of the MACs and keeps this share of its channels."""
NAMED = 5
"""Groups that are named before the rest is counted."""


@dataclass(frozen=True)
class Hint:
    """A possible cause. seen: what this run shows of it. remedy: what to do, empty where nothing is to be done."""

    cause: str
    seen: str
    remedy: str = ""


def hints(record: RunRecord) -> list[Hint]:
    """For the knee, or for the first finalist where nothing passed."""
    shown = knee_of(record) or next((f for f in record.finalists if f.failure is None), None)
    if shown is None or "latency" not in shown.measurements:
        return []
    candidates = (
        _arithmetic(record, shown),
        _widths(record, shown),
        _bottleneck(record, shown),
        _fixed(shown),
        _zeros(record, shown),
        _int8(record),
    )
    return [hint for hint in candidates if hint is not None]


def _arithmetic(record: RunRecord, finalist: Recovered) -> Hint | None:
    """Latency against MACs."""
    macs, dense = finalist.measurements.get("macs"), record.dense["selection"].get("macs")
    if macs is None or dense is None:
        return None
    arithmetic, latency = macs.value / dense.value, finalist.measurements["latency"].value
    seen = f"{finalist.name} does {arithmetic:.0%} of the dense model's MACs and takes {latency:.0%} of its time."
    if latency < arithmetic + BEHIND:
        return Hint("Work that is not arithmetic", f"{seen} Time follows MACs.")
    return Hint(
        "Work that is not arithmetic",
        f"{seen} The rest is memory traffic, operators without MACs (normalisation, activation, reshape), or layers whose kernels "
        "lose efficiency when they are narrow.",
        "Make latency an objective, as MACs are a poor stand-in for it; compare another runtime with `secateur measure`.",
    )


def _widths(record: RunRecord, finalist: Recovered) -> Hint:
    """Widths off the step in which a device gets faster."""
    cause = "A width off the device's step"
    cut = {g: int(edit.level) for g in record.groups if (edit := finalist.candidate.edit(g.name))}
    if not cut:
        return Hint(cause, "No group was cut.")
    step = record.device_step
    if step is None:
        return _unknown_step(cause, cut)
    off = [f"{group.name} ({kept})" for group, kept in cut.items() if kept % step]
    if not off:
        return Hint(cause, f"Every width that was chosen is a multiple of {step}, the step measured on the device.")
    return Hint(
        cause,
        f"{len(off)} of {len(cut)} groups that were cut keep a number of channels that is not a multiple of {step}, the step "
        f"measured on the device: {_listed(off)}. A kernel that computes {step} channels at a time takes as long for the next full "
        "block.",
        "`multiple_of: device` in the search space keeps to the step; groups that are no wider than it are best kept whole.",
    )


def _unknown_step(cause: str, cut: Mapping[GroupSummary, int]) -> Hint:
    """Where the step was not measured there is only what the search space said."""
    remedy = "`multiple_of: device` in the search space measures the step of the device and keeps to it."
    free = [f"{group.name} ({kept})" for group, kept in cut.items() if group.multiple == 1]
    if free:
        finding = f"{len(free)} of {len(cut)} groups that were cut could keep any number of channels: {_listed(free)}."
    else:
        multiples = ", ".join(str(m) for m in sorted({group.multiple for group in cut}))
        finding = f"Every width that was chosen is a multiple of what the search space says ({multiples})."
    return Hint(cause, f"{finding} The step of the device was not measured.", remedy)


def _bottleneck(record: RunRecord, finalist: Recovered) -> Hint | None:
    """Groups with many MACs that stayed nearly whole."""
    dense = record.dense["selection"].get("macs")
    if dense is None or not record.groups:
        return None
    spared = sorted(
        (g for g in record.groups if g.macs / dense.value >= HEAVY and _kept(g, finalist) >= WHOLE),
        key=lambda g: -g.macs,
    )
    heaviest = max(record.groups, key=lambda g: g.macs)
    cause = "The layers that were cut are not the bottleneck"
    if not spared:
        return Hint(
            cause,
            f"No group with {HEAVY:.0%} or more of the MACs stayed nearly whole. The heaviest, {heaviest.name} (its layers do "
            f"{heaviest.macs / dense.value:.0%} of the MACs), keeps {_kept(heaviest, finalist):.0%} of its channels.",
        )
    named = [f"{g.name} ({g.macs / dense.value:.0%} of the MACs, keeps {_kept(g, finalist):.0%})" for g in spared]
    return Hint(
        cause,
        f"Groups with many MACs stayed nearly whole: {_listed(named)}.",
        "Their sensitivity below is the cost of cutting them. More epochs of recovery, or a wider `removed`, give the search room.",
    )


def _fixed(finalist: Recovered) -> Hint | None:
    """Fixed costs of a small model."""
    latency = finalist.measurements["latency"]
    dense = latency.details.get("dense_min_ms")
    if dense is None or dense > TINY_MS:
        return None
    return Hint(
        "Fixed costs of a small model",
        f"The dense model takes {dense:.3f} ms a run. At that size, starting each operator is a visible part of the time, and "
        "removing channels does not remove operators.",
        "A larger batch spreads these costs over more samples.",
    )


def _zeros(record: RunRecord, finalist: Recovered) -> Hint | None:
    """Zeros that no kernel skips."""
    transforms = {edit.transform for edits in finalist.candidate.edits.values() for edit in edits}
    if transforms & MASKS.keys():
        evaluator = record.definition.get("evaluator", {})
        said = no_kernel(transforms, evaluator.get("runtime", ""), evaluator.get("runtime_options", {}))
        if said is None:
            return None
        return Hint(
            "Zeros without a kernel",
            f"{finalist.name} holds weights that were set to zero. {said} {patterns(finalist.patterns)}".rstrip(),
            "Judge what zeros gain by `download`, which counts them; speed comes from channels that leave.",
        )
    speed = times(1 / finalist.measurements["latency"].value)
    return Hint(
        "Zeros without a kernel",
        f"Does not apply: channels are removed whole, so the {speed} need no kernel for sparse weights.",
    )


def _int8(record: RunRecord) -> Hint | None:
    """Int8 that takes longer than float32."""
    cause = "Int8 without fast kernels"
    pairs = {f.name: pair for f in record.finalists if (pair := latencies(record, f)) is not None}
    if not pairs:
        return None
    behind = [
        f"{name} ({times(own.value / twin.value)} the time of its float32 twin)"
        for name, (own, twin) in pairs.items()
        if slower(own, twin)
    ]
    if not behind:
        return Hint(cause, f"Does not apply: none of the {len(pairs)} int8 models is slower than its float32 twin.")
    return Hint(
        cause,
        f"{len(behind)} of {len(pairs)} int8 models are slower on this device: {_listed(behind)}. Between layers that are computed "
        "in int8 and others (normalisation, softmax, GELU), numbers are converted back and forth, and a processor without "
        "instructions for products of eight bits gains nothing in the layers themselves.",
        "Take the float32 twin here, or measure the int8 file on the device that it is meant for.",
    )


def _kept(group: GroupSummary, finalist: Recovered) -> float:
    return finalist.candidate.kept(group.name, group.width)


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
