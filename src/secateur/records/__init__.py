"""The value types, in the order in which data flows. All of them are frozen.

Workload → Group → Candidate → Removals → CompressedModel → Measurement → Evaluation → Trial → Recovered → Verdict → Version.
Definitions (what a person writes) are in `secateur.definition`; the search space in `secateur.search_spaces`.
"""

from secateur.records.evaluations import Direction, Evaluation, Fidelity, Goal, Job, Measurement, Provenance
from secateur.records.finalists import Check, Recovered, Verdict, Version
from secateur.records.groups import Excluded, Group, Member, Side
from secateur.records.plans import Candidate, CompressedModel, Cut, Removals
from secateur.records.run import GroupSummary, Refitted, RunRecord
from secateur.records.trials import (
    BASELINES,
    LEAST_COMPARED,
    SEARCH,
    Arm,
    ArmResult,
    Audit,
    PredictionAudit,
    Rung,
    Sensitivity,
    Trial,
)
from secateur.records.workload import ROLES, SHARE, DataRoles, Workload

__all__ = [
    "BASELINES",
    "LEAST_COMPARED",
    "ROLES",
    "SEARCH",
    "SHARE",
    "Arm",
    "ArmResult",
    "Audit",
    "Candidate",
    "Check",
    "CompressedModel",
    "Cut",
    "DataRoles",
    "Direction",
    "Evaluation",
    "Excluded",
    "Fidelity",
    "Goal",
    "Group",
    "GroupSummary",
    "Job",
    "Measurement",
    "Member",
    "PredictionAudit",
    "Provenance",
    "Recovered",
    "Refitted",
    "Removals",
    "RunRecord",
    "Rung",
    "Sensitivity",
    "Side",
    "Trial",
    "Verdict",
    "Version",
    "Workload",
]
