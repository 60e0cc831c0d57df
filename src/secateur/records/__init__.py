"""The value types, in the order in which data flows. All of them are frozen.

Workload → Group → Candidate → Plan → CompressedModel → Measurement → Evaluation → Trial → Recovered → Verdict → Version.
Definitions (what a person writes) are in `secateur.definition`; the search space in `secateur.search_spaces`.
"""

from secateur.records.evaluations import (
    SCORE,
    Direction,
    Evaluation,
    Fidelity,
    Goal,
    Job,
    Measurement,
    Provenance,
    gain,
)
from secateur.records.finalists import Check, Recovered, Verdict, Version
from secateur.records.groups import Excluded, Group, Member, Side
from secateur.records.plans import CHANNELS, Candidate, CompressedModel, Edit, Plan, Remove, Step
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
    "CHANNELS",
    "LEAST_COMPARED",
    "ROLES",
    "SCORE",
    "SEARCH",
    "SHARE",
    "Arm",
    "ArmResult",
    "Audit",
    "Candidate",
    "Check",
    "CompressedModel",
    "DataRoles",
    "Direction",
    "Edit",
    "Evaluation",
    "Excluded",
    "Fidelity",
    "Goal",
    "Group",
    "GroupSummary",
    "Job",
    "Measurement",
    "Member",
    "Plan",
    "PredictionAudit",
    "Provenance",
    "Recovered",
    "Refitted",
    "Remove",
    "RunRecord",
    "Rung",
    "Sensitivity",
    "Side",
    "Step",
    "Trial",
    "Verdict",
    "Version",
    "Workload",
    "gain",
]
