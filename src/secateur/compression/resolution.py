"""From a candidate (what is done to each group, by which criterion) to the plan: what leaves which layer, what becomes zero."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.compression.plan import united
from secateur.compression.saliency import Saliencies
from secateur.compression.transforms import STAGES, TRANSFORMS, Stage
from secateur.records import Candidate, Edit, Group, Plan


def resolve(candidate: Candidate, groups: Sequence[Group], saliencies: Saliencies) -> Plan:
    """Spell a candidate out, stage by stage. Groups that it does not name stay whole.

    Raises ValueError where a group has more than one edit of a stage.
    """
    plan = Plan()
    for stage in STAGES:
        steps = [
            step
            for group in groups
            if (edit := _edit_of(candidate, group.name, stage)) is not None
            for step in TRANSFORMS[edit.transform].steps(group, edit, saliencies[group.name], plan)
        ]
        plan = united((*plan.steps, *steps))
    return plan


def _edit_of(candidate: Candidate, group: str, stage: Stage) -> Edit | None:
    edits = [edit for edit in candidate.edits.get(group, ()) if TRANSFORMS[edit.transform].stage == stage]
    if len(edits) > 1:
        listed = ", ".join(f"{edit.transform} {edit.level} by {edit.by}" for edit in edits)
        raise ValueError(f"'{group}' has {len(edits)} edits of the stage '{stage}' ({listed}): at most one is allowed.")
    return edits[0] if edits else None
