"""How many networks there were at each step: every line is a part of the one it stands under, and the parts add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from secateur.records import RunRecord, Trial, Verdict

LISTED = 5
"""Reasons that are shown; the rest is in record.json."""


@dataclass(frozen=True)
class Count:
    """A number of networks. depth: 0 for a total, 1 for its parts, and so on."""

    what: str
    number: int
    depth: int = 0


def searched(record: RunRecord) -> list[Count]:
    """The proposals of the search. Parts that are 0 are left out."""
    kinds = Counter(_kind(t, record) for t in record.trials)
    full = kinds["front"] + kinds["feasible"] + kinds["infeasible"]
    counts = [
        Count("proposals", len(record.trials)),
        Count("the dense model itself", kinds["dense"], 1),
        Count("the same network as an earlier proposal", kinds["same"], 1),
        Count("rejected before evaluation, a limit would be missed", kinds["unseen"], 1),
        Count("stopped early, the front could not be reached", kinds["stopped"], 1),
        Count("failed", kinds["failed"], 1),
        Count("evaluated in full", full, 1),
        Count("infeasible: outside the limits of the search", kinds["infeasible"], 2),
        Count("feasible", kinds["front"] + kinds["feasible"], 2),
        Count("dominated", kinds["feasible"], 3),
        Count("on the front of the search", kinds["front"], 3),
    ]
    return [c for c in counts if c.number or c.depth == 0]


def _kind(trial: Trial, record: RunRecord) -> str:
    evaluation = trial.evaluation
    if trial.same_as is not None:
        return "same"
    if trial.arm == "dense":
        return "dense"
    if evaluation.failure is not None:
        return "failed"
    if evaluation.stopped is not None:
        return "unseen" if evaluation.rejected else "stopped"
    if trial.number in record.infeasible:
        return "infeasible"
    return "front" if trial.number in record.searched_front else "feasible"


def finalists(record: RunRecord) -> list[Count]:
    """The finalists: each falls under one line."""
    kinds = Counter(_outcome(record.verdicts.get(finalist.name)) for finalist in record.finalists)
    counts = [
        Count("finalists, measured again", len(record.finalists)),
        *(Count(text, kinds[text], 1) for text in OUTCOMES),
    ]
    return [c for c in counts if c.number or c.depth == 0]


OUTCOMES = (
    "failed",
    "constraints not met, on the front",
    "constraints not met, dominated",
    "constraints met, dominated",
    "constraints met and on the front: passed the gate",
)


def _outcome(verdict: Verdict | None) -> str:
    if verdict is None:
        return OUTCOMES[0]
    if not verdict.feasible:
        return OUTCOMES[1] if verdict.on_front else OUTCOMES[2]
    return OUTCOMES[4] if verdict.on_front else OUTCOMES[3]


def reasons(record: RunRecord) -> list[tuple[str, int]]:
    """Why evaluations failed, and how often: the most frequent ones."""
    failures = Counter(t.evaluation.failure for t in record.trials if t.same_as is None and t.evaluation.failure)
    return failures.most_common(LISTED)
