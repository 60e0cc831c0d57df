"""Latency of a network on a device where measuring is slow: predicted from a table of its operators, calibrated on a few networks.

Each operator is timed once, alone, on the device itself. Their sum is not yet a network's latency: alone, an operator pays for
bringing its data into the runtime's layout, and finds its weights in the cache. A linear correction (time, data moved, weights,
all relative to the dense network's) learns that from a few measured networks. Leaving each of them out in turn says how far off
the predictor is, and its intervals are as wide as that. Source: intervals from left-out residuals as in the jackknife+ (Barber et
al. 2021, arXiv:1905.02928); ours are symmetric and relative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy.special import stdtrit

from secateur.errors import EvaluationFailed, StateError
from secateur.evaluators.operator_table import Table
from secateur.evaluators.operators import Operator, operators_of
from secateur.records import DEPTH, Candidate
from secateur.search_spaces import SearchSpace

Array = NDArray[np.float64]

CONFIDENCE = 0.9
"""Share of measured latencies that should lie in the predicted interval."""
LEAST_MODELS = 5
"""Measured networks below which nothing can be said about a predictor's error."""
RIDGE = 3e-3
"""Pull towards the bare table, per squared unit of relative change: it matters where calibration networks are few or alike."""
HUBER = 1.345
"""Residuals, in robust standard deviations, from which a measured network counts less: 95 % efficient on normal ones."""
LEAST_HALF_WIDTH = 0.01
"""Of an interval, relative: measurements end when theirs is this narrow, so nothing can be predicted more exactly."""
LEAST_RATIO = 1e-3
"""Nothing takes no time."""


@dataclass(frozen=True)
class Prediction:
    """Latency as a share of the dense network's, with the interval in which it is measured nine times out of ten."""

    ratio: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """How a predictor did on its calibration networks, each predicted from the others. kendall: None where there is no order."""

    models: int
    mean_error: float
    within_tenth: float
    kendall: float | None


@dataclass(frozen=True)
class Predictor:
    """For networks cut from one dense network, on one device with one runtime.

    batch: samples per run. dense: of the dense network, what `_sums` says. coefficients: of the changes of those. half_width: of
    intervals, relative to the prediction.
    """

    table: Table
    batch: int
    dense: tuple[float, ...]
    coefficients: tuple[float, ...]
    half_width: float
    quality: Quality

    def predict(self, onnx: bytes) -> Prediction:
        """onnx: a candidate's serialised model. Raises ModelError where its shapes are not known before it runs."""
        change = _change(_sums(operators_of(onnx, self.batch), self.table), np.array(self.dense))
        ratio = max(LEAST_RATIO, 1 + float(change @ self.coefficients))
        return Prediction(ratio, (ratio * max(0.0, 1 - self.half_width), ratio * (1 + self.half_width)))

    def to_json(self) -> bytes:
        """For a file."""
        return _PREDICTOR.dump_json(self)

    @staticmethod
    def from_json(content: bytes) -> Predictor:
        """Raises StateError where it is no predictor's."""
        try:
            return _PREDICTOR.validate_json(content)
        except ValidationError as error:
            raise StateError(f"This is no latency predictor: {error}") from error


_PREDICTOR: TypeAdapter[Predictor] = TypeAdapter(Predictor)


def calibration_candidates(space: SearchSpace, count: int, seed: int) -> list[Candidate]:
    """So many different networks to calibrate on (fewer where the space has no more), spread over sizes and over groups.

    A third is uniform, from a little cut to the smallest. The others are drawn around evenly spread levels, every group apart
    from its level by up to a third of what can go, so that no group's effect hides behind another's. The dense network is not
    among them: its ratio is known.
    """
    rng = np.random.default_rng(seed)
    most = max(choice.removed[1] for choice in space.choices.values())
    drawn: dict[tuple[int, ...], Candidate] = {_widths(space, space.dense()): space.dense()}

    def take(candidate: Candidate) -> None:
        drawn.setdefault(_widths(space, candidate), candidate)

    for level in np.linspace(most, 0, ceil(count / 3), endpoint=False):
        take(_around(space, np.full(len(space.choices), level)))
    for attempt in range(20 * count):
        if len(drawn) > count:
            break
        level = most * ((attempt % count) + rng.uniform()) / count
        take(_around(space, level + rng.uniform(-most / 3, most / 3, len(space.choices))))
    return list(drawn.values())[1 : count + 1]


def _around(space: SearchSpace, removed: Array) -> Candidate:
    """removed: (groups,), fractions; those that a group does not allow become the nearest that it does."""
    return Candidate.of(
        {
            name: choice.nearest(float(np.clip(fraction, *choice.removed)), choice.methods[0]).edits(choice.methods[0])
            for (name, choice), fraction in zip(space.choices.items(), removed, strict=True)
        }
    )


def _widths(space: SearchSpace, candidate: Candidate) -> tuple[int, ...]:
    """What can be told apart by its latency: how many channels stay, and which blocks."""
    return tuple(
        candidate.width(group.name, group.width) * (candidate.edit(group.name, DEPTH) is None) for group in space.groups
    )


def fit(dense: bytes, calibration: Sequence[tuple[bytes, float]], table: Table, batch: int) -> Predictor:
    """A predictor from measured networks: (serialised ONNX model, its latency as a share of the dense model's) each.

    dense: the model whose share is 1. Raises EvaluationFailed where they are too few or a share is no positive number.
    """
    from scipy.stats import kendalltau  # slow to import

    shares = np.array([share for _, share in calibration], dtype=np.float64)
    if len(shares) < LEAST_MODELS or not (np.isfinite(shares) & (shares > 0)).all():
        raise EvaluationFailed(
            f"a latency predictor needs at least {LEAST_MODELS} networks with a measured latency; it got {len(shares)}: "
            f"{', '.join(f'{share:.3g}' for share in shares)}"
        )
    whole = _sums(operators_of(dense, batch), table)
    changes = np.array([_change(_sums(operators_of(onnx, batch), table), whole) for onnx, _ in calibration])
    left_out = np.array([_left_out(changes, shares, i) for i in range(len(shares))])
    order = float(kendalltau(left_out, shares).statistic)
    errors = np.abs(left_out / shares - 1)
    quality = Quality(
        len(shares), float(errors.mean()), float((errors <= 0.1).mean()), None if np.isnan(order) else order
    )
    coefficients = tuple(_solve(changes, shares).tolist())
    half_width = _half_width(np.abs(shares / left_out - 1))
    return Predictor(table, batch, tuple(whole.tolist()), coefficients, half_width, quality)


def _sums(operators: Iterable[Operator], table: Table) -> Array:
    """Seconds by the table, elements moved and weights of a network: (3,)."""
    sums: Array = np.array([(table.time(o), o.moved, o.weights) for o in operators], dtype=np.float64).sum(axis=0)
    return sums


def _change(sums: Array, dense: Array) -> Array:
    """Relative to the dense network: 0 for it itself, and for what it has none of."""
    changed: Array = np.where(dense > 0, sums / np.where(dense > 0, dense, 1) - 1, 0.0)
    return changed


def _solve(changes: Array, shares: Array) -> Array:
    """Coefficients of `share = 1 + changes @ coefficients`, by iteratively reweighted least squares of the relative errors.

    changes: (networks, 3). The ridge pulls them to (1, 0, 0): the table as it is.
    """
    prior = np.eye(changes.shape[1])[0]
    rows, wanted = changes / shares[:, None], (shares - 1 - changes @ prior) / shares
    weights = np.ones(len(shares))
    for _ in range(20):
        weighted = rows.T * weights
        solution = np.linalg.solve(weighted @ rows + RIDGE * np.eye(len(prior)), weighted @ wanted)
        residuals = np.abs(wanted - rows @ solution)
        spread = 1.4826 * float(np.median(residuals)) + 1e-4  # of normal residuals; a hundredth of a percent is none
        weights = np.minimum(1.0, HUBER * spread / np.maximum(residuals, 1e-12))
    found: Array = prior + solution
    return found


def _left_out(changes: Array, shares: Array, i: int) -> float:
    """The share of network i as predicted from the others."""
    others = np.arange(len(shares)) != i
    return max(LEAST_RATIO, 1 + float(changes[i] @ _solve(changes[others], shares[others])))


def _half_width(residuals: Array) -> float:
    """Relative half width from left-out residuals (n,): the conformal quantile, or, where they are too few for one, Student's t."""
    count = len(residuals)
    rank = min(count, ceil(CONFIDENCE * (count + 1)))
    conformal = float(np.sort(residuals)[rank - 1])
    parametric = float(stdtrit(count, (1 + CONFIDENCE) / 2) * np.sqrt(np.mean(np.square(residuals))))
    return max(conformal, parametric, LEAST_HALF_WIDTH)
