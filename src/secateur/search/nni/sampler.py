"""NNI's tuners as an Optuna sampler: Optuna's study stays the record, several objectives become one by ParEGO."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from secateur.search.front import Points
from secateur.search.nni.tuners import TUNERS, Scored
from secateur.search.parego import parego_losses


class NniSampler(BaseSampler):
    """Asks an NNI tuner for all parameters at once. Keeps nothing but its generator: what has been seen is read from the study.

    Until a first trial has completed the search space is not known, and parameters are drawn at random. Trials that failed or
    still run are not told to the tuner; an infeasible one (a constraint above zero) is told as worse than all feasible ones.
    """

    def __init__(self, tuner: str, seed: int) -> None:
        """tuner: an entry of TUNERS."""
        self._suggest = TUNERS[tuner]
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._space = IntersectionSearchSpace()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """All parameters that every completed trial had and that leave a choice."""
        return {name: d for name, d in self._space.calculate(study).items() if not d.single()}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002 # the interface
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The tuner's next values. Raises TypeError for a distribution that is neither continuous nor categorical."""
        if not search_space:
            return {}
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        losses = parego_losses(_costs(study, trials), _violations(trials), self._rng)
        # Optuna's internal form: a category is its position, everything else is itself.
        seen = [
            Scored({name: d.to_internal_repr(t.params[name]) for name, d in search_space.items()}, float(loss))
            for t, loss in zip(trials, losses, strict=True)
        ]
        space = {name: _spec(name, distribution) for name, distribution in search_space.items()}
        values = self._suggest(space, seen, int(self._rng.integers(2**31)))
        return {name: d.to_external_repr(values[name]) for name, d in search_space.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, for parameters that the tuner does not know yet."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _costs(study: Study, trials: list[FrozenTrial]) -> Points:
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in study.directions]
    return np.array([t.values for t in trials], float).reshape(len(trials), len(signs)) * signs


def _violations(trials: list[FrozenTrial]) -> Points:
    """A trial that lacks a constraint of others counts as holding it."""
    names = sorted({name for t in trials for name in t.constraints})
    return np.array([[t.constraints.get(name, 0.0) for name in names] for t in trials]).reshape(len(trials), len(names))


def _spec(name: str, distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        return {"_type": "choice", "_value": list(range(len(distribution.choices)))}
    if isinstance(distribution, FloatDistribution) and distribution.step is None and not distribution.log:
        return {"_type": "uniform", "_value": [distribution.low, distribution.high]}
    raise TypeError(f"'{name}': NNI's tuners are given continuous and categorical parameters, not {distribution}.")
