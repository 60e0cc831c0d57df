"""Budgets: typed goals as limits, and which limits no cut can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from secateur.definition import LOWER_GOALS, ConstraintDefinition
from secateur.records import SCORE, Goal, Measurement

LOOSER = 8
"""Times the allowed loss that a candidate may show before recovery, which brings most of it back."""
LEAST_DROP = 0.01
"""Share of the dense value that counts as the allowed loss where a goal allows none, so that the search has room."""


def goals_of(
    constraints: Mapping[str, ConstraintDefinition], dense: Mapping[str, Measurement], *, recovers: bool
) -> tuple[Goal, ...]:
    """The goals of a definition as limits. dense: the original's figures, of which relative goals are shares."""
    goals = []
    for metric, constraint in constraints.items():
        base = dense[metric].value
        for name, value in constraint.goals.items():
            limit, text = _LIMITS[name](metric, base, value)
            in_search = limit
            if name == "max_drop":
                in_search = base - _loose(value, base, constraint, recovers=recovers)
            elif name == "max_rise":
                in_search = base + _loose(value, base, constraint, recovers=recovers)
            elif name == "at_least":
                in_search = min(limit, base - _loose(max(0.0, base - limit), base, constraint, recovers=recovers))
            elif name == "at_most" and metric == SCORE:
                in_search = max(limit, base + _loose(max(0.0, limit - base), base, constraint, recovers=recovers))
            sense: Literal["at_least", "at_most"] = "at_least" if name in LOWER_GOALS else "at_most"
            drop = value if name in ("max_drop", "max_rise") else None
            goals.append(Goal(metric, sense, limit, in_search, text, drop))
    return tuple(goals)


_LIMITS: Mapping[str, Callable[[str, float, float], tuple[float, str]]] = {
    "max_drop": lambda m, base, v: (base - v, f"{m} within {v:g} of the dense model"),
    "max_rise": lambda m, base, v: (base + v, f"{m} within {v:g} of the dense model"),
    "at_least": lambda m, _base, v: (v, f"{m} at least {v:g}"),
    "at_most": lambda m, _base, v: (v, f"{m} at most {v:g}"),
    "speedup_at_least": lambda m, base, v: (base / v, f"{m} at least {v:g} times less than the dense model's"),
    "smaller_by": lambda m, base, v: (base * (1 - v), f"{m} smaller by {v:.0%} or more"),
}


def _loose(drop: float, base: float, constraint: ConstraintDefinition, *, recovers: bool) -> float:
    """The loss that the search allows where `drop` is allowed in the end."""
    if constraint.before_recovery is not None:
        return constraint.before_recovery
    return LOOSER * max(drop, LEAST_DROP * abs(base)) if recovers else drop


def violations(goals: Sequence[Goal], measured: Mapping[str, Measurement], *, in_search: bool) -> dict[str, float]:
    """How far each goal is missed, as a share of its limit; ≤ 0 holds. A metric that is not there is missed altogether."""
    return {
        goal.text: goal.violation(measured[goal.metric].value, in_search=in_search) if goal.metric in measured else 1.0
        for goal in goals
    }


def holds(goals: Sequence[Goal], measured: Mapping[str, Measurement], *, in_search: bool) -> bool:
    """Whether all goals are kept."""
    return all(v <= 0 for v in violations(goals, measured, in_search=in_search).values())


def unreachable(goals: Sequence[Goal], smallest: Mapping[str, Measurement]) -> list[tuple[Goal, float]]:
    """Goals on a cost that even the smallest network of the space misses beyond noise, with the nearest value it reaches."""
    return [
        (goal, smallest[goal.metric].value)
        for goal in goals
        if goal.sense == "at_most" and goal.metric in smallest and smallest[goal.metric].bounds[0] > goal.limit
    ]
