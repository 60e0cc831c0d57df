"""Samplers by name. One more is one more entry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler


@dataclass(frozen=True)
class Sampler:
    """make: seed → sampler."""

    make: Callable[[int], BaseSampler]
    summary: str


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # `group` has been experimental for five years; it is what keeps multivariate sampling sound with choices per group.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, seed=seed)


SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler(_tpe, "tree-structured Parzen estimator, multivariate and grouped, multi-objective (Optuna)"),
    "nsga2": Sampler(
        lambda seed: NSGAIISampler(seed=seed, population_size=20), "non-dominated sorting genetic algorithm II (Optuna)"
    ),
    "random": Sampler(lambda seed: RandomSampler(seed=seed), "uniform noise over the space: the control (Optuna)"),
}
"""The registry."""

optuna.logging.set_verbosity(optuna.logging.WARNING)
