"""From a candidate (how many channels stay, by which method) to the channels that leave."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.compression.saliency import Saliencies
from secateur.compression.surgery import removals_of
from secateur.records import Candidate, Cut, Group, Removals


def channels_to_remove(group: Group, cut: Cut, saliencies: Saliencies) -> tuple[int, ...]:
    """The root channels with the lowest saliency, as many as must go; ties go in channel order."""
    count = group.width - cut.kept
    if count == 0 or cut.method is None:
        return ()
    scores = saliencies[group.name][cut.method]
    ranked = sorted(group.removable, key=lambda channel: (float(scores[channel]), channel))
    return tuple(sorted(ranked[:count]))


def resolve(candidate: Candidate, groups: Sequence[Group], saliencies: Saliencies) -> Removals:
    """Spell a candidate out as removals per layer. Groups that the candidate does not name stay whole."""
    removed = {
        group.name: channels_to_remove(group, candidate.cuts[group.name], saliencies)
        for group in groups
        if group.name in candidate.cuts
    }
    return removals_of(groups, removed)
