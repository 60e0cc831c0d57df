"""NNI's tuners, each as one function: what has been seen → what to try next.

A tuner is built anew for every suggestion, because the losses of all that has been seen change with ParEGO's weights. That is
linear in what has been seen: a few milliseconds at 200 trials and 40 dimensions.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nni
import numpy as np
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner, Individual
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner

nni.silence_stdout()
logging.getLogger("nni").setLevel(logging.WARNING)  # a line for each tuner that is built

Space = Mapping[str, Mapping[str, Any]]
"""NNI's search space: name → `{"_type": "uniform" | "choice", "_value": [...]}`."""

Values = dict[str, float]
"""Of a choice, one of its `_value`: the sampler lets NNI choose among positions."""

STARTUP = 10
"""Trials before a tuner learns from them, as Optuna's samplers have it; NNI's own default for TPE is 20."""

POPULATION = 5
"""Members that evolution breeds from. NNI's default, 32, is made for thousands of trials: at a hundred it is worse than noise."""

ATTEMPTS = 10
"""Children in a row that evolution may have had before: a choice drawn anew can come out as it was."""


@dataclass(frozen=True)
class Scored:
    """A finished trial. loss: less is better; comparable within one call only."""

    values: Values
    loss: float


Suggest = Callable[[Space, Sequence[Scored], int], Values]
"""search space, what has been seen, seed → the next trial's values."""


def tpe(space: Space, seen: Sequence[Scored], seed: int) -> Values:
    """NNI's tree-structured Parzen estimator (Bergstra et al. 2011); random until it has seen enough."""
    tuner = TpeTuner("minimize", seed=seed, tpe_args={"n_startup_jobs": STARTUP})
    tuner.update_search_space(space)
    tuner.dedup = _Everything()
    tuner.import_data([{"parameter": scored.values, "value": scored.loss} for scored in seen])
    return _plain(tuner.generate_parameters(0))


def evolution(space: Space, seen: Sequence[Scored], seed: int) -> Values:
    """NNI's naive evolution (Real et al. 2017): of a random pair the better one, with one parameter drawn anew.

    Ours is the population: the best that have been seen, since under new weights no earlier selection holds. Random until it
    has seen enough.
    """
    if len(seen) < STARTUP:
        return uniform(space, seen, seed)
    best = sorted(seen, key=lambda scored: scored.loss)[:POPULATION]
    rng = np.random.RandomState(seed)  # what the tuner expects
    with _global_random(seed):
        for _ in range(ATTEMPTS):
            tuner = EvolutionTuner("minimize", POPULATION)
            tuner.update_search_space(space)
            tuner.random_state = rng
            tuner.population = [Individual(_indexed(space, scored.values), result=-scored.loss) for scored in best]
            values = _plain(tuner.generate_parameters(0))
            if all(values != scored.values for scored in seen):
                return values
    return uniform(space, seen, seed)


def uniform(space: Space, seen: Sequence[Scored], seed: int) -> Values:  # noqa: ARG001 # the interface
    """NNI's random tuner."""
    tuner = RandomTuner(seed=seed)
    tuner.update_search_space(space)
    return _plain(tuner.generate_parameters(0))


TUNERS: dict[str, Suggest] = {"tpe": tpe, "evolution": evolution, "random": uniform}
"""Every usable tuner by its name."""


class _Everything:
    """In place of NNI's Deduplicator, whose import is quadratic in the dimensions (seconds at 200 trials).

    Nothing is lost: it passes everything wherever a parameter is continuous, and the search knows equal networks itself.
    """

    def __call__(self, parameters: Any) -> Any:
        return parameters

    def add_history(self, parameters: Any) -> None:
        """Nothing to remember."""


def _indexed(space: Space, values: Values) -> dict[str, Any]:
    """How the evolution tuner writes a choice down."""
    return {
        name: {"_index": list(spec["_value"]).index(values[name]), "_value": values[name]}
        if spec["_type"] == "choice"
        else values[name]
        for name, spec in space.items()
    }


def _plain(parameters: Mapping[str, Any]) -> Values:
    """NumPy's numbers as Python's: they go into JSON."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in parameters.items()}


@contextlib.contextmanager
def _global_random(seed: int) -> Iterator[None]:
    """The evolution tuner draws from Python's global generator: seed it, and leave it as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
