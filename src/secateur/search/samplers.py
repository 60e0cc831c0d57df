"""Samplers by name. One more is one more entry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler


@dataclass(frozen=True)
class Sampler:
    """make: seed → sampler."""

    make: Callable[[int], BaseSampler]
    summary: str


def _quietly(make: Callable[[int], BaseSampler]) -> Callable[[int], BaseSampler]:
    """Optuna calls some of its samplers, and options of them, experimental for years; that is no news to anyone."""

    def made(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return make(seed)

    return made


SAMPLERS: dict[str, Sampler] = {
    # `group` is what keeps multivariate sampling sound with choices per group.
    "tpe": Sampler(
        _quietly(lambda seed: TPESampler(multivariate=True, group=True, seed=seed)),
        "tree-structured Parzen estimator, multivariate and grouped, multi-objective (Optuna)",
    ),
    "nsga2": Sampler(
        lambda seed: NSGAIISampler(seed=seed, population_size=20), "non-dominated sorting genetic algorithm II (Optuna)"
    ),
    "nsga3": Sampler(
        _quietly(lambda seed: NSGAIIISampler(seed=seed, population_size=20)),
        "the same with reference points, for many objectives (Optuna)",
    ),
    "gp": Sampler(
        _quietly(lambda seed: GPSampler(seed=seed)),
        "Gaussian process with expected hypervolume improvement; about a second an ask (Optuna)",
    ),
    "qmc": Sampler(
        _quietly(lambda seed: QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)),
        "Sobol' sequence: even cover of the space, methods drawn at random (Optuna)",
    ),
    "random": Sampler(lambda seed: RandomSampler(seed=seed), "uniform noise over the space: the control (Optuna)"),
}
"""The registry."""

optuna.logging.set_verbosity(optuna.logging.WARNING)
