"""From a candidate (what is done to each group, by which criterion) to the plan: which channels leave which layer."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.compression.plan import united
from secateur.compression.saliency import Saliencies
from secateur.compression.transforms import STAGES, TRANSFORMS
from secateur.records import Candidate, Group, Plan


def resolve(candidate: Candidate, groups: Sequence[Group], saliencies: Saliencies) -> Plan:
    """Spell a candidate out, stage by stage. Groups that it does not name stay whole."""
    return united(
        step
        for stage in STAGES
        for group in groups
        for edit in candidate.edits.get(group.name, ())
        if (transform := TRANSFORMS[edit.transform]).stage == stage
        for step in transform.steps(group, edit, saliencies[group.name])
    )
