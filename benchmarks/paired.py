"""How often do the intervals of paired differences cover the true difference, and how much narrower are they than unpaired ones?

Invented networks with known true scores, no model: `.venv/bin/python benchmarks/paired.py`, a minute. Three kinds of scores, as
`secateur.evaluators.paired` tells them apart: 0 or 1 a sample (Tango's interval), any number a sample (Student's t), one number for
all samples (bootstrap; here the F1 score of a binary task).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from common import arguments, table, write_json
from secateur.evaluators.paired import WORST, Interval, change, tango, wilson
from secateur.evaluators.sample_scores import RESAMPLES, Scores

SAMPLES = (250, 1000, 4000)
LOSSES = (0.0, 0.01, 0.03)
DISAGREE = 0.05
"""Share of samples that only one of two networks gets right."""
RIGHT = 0.92
"""The dense network's true score."""


@cache
def cached_tango(won: int, lost: int, samples: int, confidence: float) -> Interval:
    """Few pairs of counts make up most draws."""
    return tango(won, lost, samples, confidence)


def binary(samples: int, loss: float, rng: np.random.Generator) -> Iterator[tuple[bool, bool, float]]:
    """Covered by the 95 % interval, above the one-sided bound, width over that of two independent Wilson intervals."""
    won, lost = (DISAGREE - loss) / 2, (DISAGREE + loss) / 2
    both = RIGHT - lost
    unpaired = 2 * np.hypot(*[(wilson(x, samples).high - wilson(x, samples).low) / 2 for x in (RIGHT, RIGHT - loss)])
    while True:
        b, c, *_ = (int(x) for x in rng.multinomial(samples, [won, lost, both, 1 - won - lost - both]))
        two, one = cached_tango(b, c, samples, 0.95), cached_tango(b, c, samples, 0.9)
        yield two.low <= -loss <= two.high, one.low <= -loss, (two.high - two.low) / unpaired


def real(samples: int, loss: float, rng: np.random.Generator) -> Iterator[tuple[bool, bool, float]]:
    """Skewed scores (a log-normal error, negated) of which 90 % of the variance is the sample's own."""
    while True:
        sample = rng.lognormal(0.0, 0.5, samples)
        left, right = (-sample + 0.17 * rng.standard_normal(samples) for _ in range(2))
        unpaired = 2 * 1.96 * np.hypot(left.std(), right.std()) / samples**0.5
        yield _checked(Scores(samples, True, left - loss), Scores(samples, True, right), -loss, unpaired)


def whole(samples: int, loss: float, rng: np.random.Generator) -> Iterator[tuple[bool, bool, float]]:
    """F1 of two networks whose errors overlap; a resample is a draw of the eight kinds of samples."""
    wrong = np.array([0.05, 0.025 + loss, 0.025, 0.0])  # both wrong, only the left, only the right; then nobody
    wrong[3] = 1 - wrong.sum()
    kinds = np.concatenate([0.3 * wrong, 0.7 * wrong])  # positives, then negatives
    truth = float(np.diff(_f1(kinds[None]), axis=0)[0, 0])
    while True:
        seen = rng.multinomial(samples, kinds)
        drawn = _f1(np.vstack([seen, rng.multinomial(samples, seen / samples, RESAMPLES)]))
        unpaired = 2 * 1.96 * np.hypot(*drawn[:, 1:].std(1))
        yield _checked(Scores(samples, False, drawn[1]), Scores(samples, False, drawn[0]), truth, unpaired)


def _f1(kinds: NDArray[np.float64]) -> NDArray[np.float64]:
    """kinds: (m, 8) → (2, m): F1 of the right and of the left network."""
    positives, negatives = kinds[:, :4], kinds[:, 4:]
    found = []
    for column in (2, 1):
        missed = positives[:, 0] + positives[:, column]
        hit, false = positives.sum(1) - missed, negatives[:, 0] + negatives[:, column]
        found.append(2 * hit / (2 * hit + missed + false))
    return np.array(found)


def _checked(left: Scores, right: Scores, truth: float, unpaired: float) -> tuple[bool, bool, float]:
    found = change(left, right)
    low, high = found.bounds
    return low <= truth <= high, found.details[WORST["maximize"]] <= truth, (high - low) / unpaired


KINDS: dict[str, Callable[[int, float, np.random.Generator], Iterator[tuple[bool, bool, float]]]] = {
    "0 or 1 a sample": binary,
    "any number a sample": real,
    "one number for all": whole,
}


def main() -> None:
    """All kinds, sizes and losses."""
    options = arguments(__doc__).parse_args()
    repeats = 400 if options.quick else 2000
    found = []
    for kind, draws in KINDS.items():
        for samples in SAMPLES:
            for loss in LOSSES:
                rng = np.random.default_rng([samples, round(1000 * loss)])
                drawn = np.array([each for each, _ in zip(draws(samples, loss, rng), range(repeats), strict=False)])
                found.append((kind, samples, loss, *drawn.mean(0).tolist()))
    table(
        f"Paired differences, {repeats} repeats each",
        ["score", "samples", "loss", "95 % interval covers", "one-sided bound covers", "width, of unpaired"],
        [[k, str(n), f"{loss:.2f}", f"{c:.1%}", f"{b:.1%}", f"{w:.2f}"] for k, n, loss, c, b, w in found],
    )
    write_json(options.json, {"columns": ["score", "samples", "loss", "covered", "one_sided", "width"], "rows": found})


if __name__ == "__main__":
    main()
