"""Which options lose least for a given saving: an exact knapsack over sensitivity curves.

Damage and savings of single cuts are taken to add up. They do not quite, which is why the points found here are evaluated like
any other candidate; as starting points they are far better than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.search_spaces import Option

RESOLUTION = 1000
"""Steps into which the largest possible saving is divided; the programme is exact on that grid."""


@dataclass(frozen=True)
class Curve:
    """What one group offers: damage and saving of each option of its ladder, against the untouched group."""

    damage: tuple[float, ...]
    saving: tuple[float, ...]


def damage_curve(ladder: Sequence[Option], known: Mapping[int, float]) -> NDArray[np.float64]:
    """(options,): the damage of every option from a few measured ones. known: position on the ladder → damage.

    Between measured points linear in the removed share, outside them it grows with its square. Less removed cannot hurt more.
    """
    removed, x, y = _points(ladder, known)
    y = np.maximum.accumulate(np.maximum(y, 0.0))
    filled = np.interp(removed, x, y)
    below, above = removed < x[1], removed > x[-1]
    filled[below] = y[1] * (removed[below] / x[1]) ** 2
    filled[above] = y[-1] * (removed[above] / x[-1]) ** 2
    return filled


def saving_curve(ladder: Sequence[Option], known: Mapping[int, float]) -> NDArray[np.float64]:
    """(options,): savings from a few known ones, linear in the removed share; never negative. Arguments as above."""
    removed, x, y = _points(ladder, known)
    filled = np.interp(removed, x, y)
    above = removed > x[-1]
    filled[above] = y[-1] * removed[above] / x[-1]
    return np.maximum(filled, 0.0)


def _points(
    ladder: Sequence[Option], known: Mapping[int, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    removed = np.array([option.removed for option in ladder])
    points = sorted((ladder[position].removed, value) for position, value in known.items())
    x, y = (np.array(column) for column in zip((0.0, 0.0), *points, strict=True))
    return removed, x, y


def solve(curves: Mapping[str, Curve], targets: Sequence[float]) -> list[dict[str, int]]:
    """For each target the options (group → position on its ladder) of least total damage that save at least that much.

    targets: in the unit of the curves' savings, each at most the sum of the largest ones. Dynamic programme over the groups.
    """
    largest = sum(max(curve.saving) for curve in curves.values())
    step = largest / RESOLUTION
    best = np.full(RESOLUTION + 1, np.inf)
    best[0] = 0.0
    taken: list[NDArray[np.int64]] = []
    for curve in curves.values():
        options = np.full((len(curve.damage), RESOLUTION + 1), np.inf)
        for i, (damage, saving) in enumerate(zip(curve.damage, curve.saving, strict=True)):
            units = int(saving / step) if step > 0 else 0
            options[i, units:] = best[: RESOLUTION + 1 - units] + damage
        taken.append(options.argmin(0))
        best = options.min(0)
    return [_trace(curves, taken, _start(best, target / step if step > 0 else 0.0), step) for target in targets]


def _start(best: NDArray[np.float64], units: float) -> int:
    """The reachable saving of least damage that meets the target; the largest reachable one where none does."""
    reachable = np.flatnonzero(np.isfinite(best))
    enough = reachable[reachable >= units - len(best) * 0.005]  # savings are rounded down, group by group
    return int(enough[best[enough].argmin()]) if len(enough) else int(reachable[-1])


def _trace(curves: Mapping[str, Curve], taken: list[NDArray[np.int64]], units: int, step: float) -> dict[str, int]:
    position = {}
    for (name, curve), choice in zip(reversed(list(curves.items())), reversed(taken), strict=True):
        picked = int(choice[units])
        position[name] = picked
        units -= int(curve.saving[picked] / step) if step > 0 else 0
    return position
