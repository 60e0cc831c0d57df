"""Samplers by name. One more is one more entry."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from secateur.plugins import Registry
from secateur.search.nni.names import BROKEN


@dataclass(frozen=True)
class Sampler:
    """make: seed → sampler. extra: the optional dependency that it needs, or nothing."""

    make: Callable[[int], BaseSampler]
    summary: str
    extra: str = ""


def _quietly(make: Callable[[int], BaseSampler]) -> Callable[[int], BaseSampler]:
    """Optuna calls some of its samplers, and options of them, experimental for years; that is no news to anyone."""

    def made(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return make(seed)

    return made


def _nni(tuner: str, seed: int) -> BaseSampler:
    from secateur.search.nni.sampler import NniSampler  # an extra, and a second of imports

    return NniSampler(tuner, seed)


SAMPLERS: Registry[Sampler] = Registry(
    "secateur.samplers",
    Sampler,
    {
        # `group` is what keeps multivariate sampling sound with choices per group.
        "tpe": Sampler(
            _quietly(lambda seed: TPESampler(multivariate=True, group=True, seed=seed)),
            "tree-structured Parzen estimator, multivariate and grouped, multi-objective (Optuna)",
        ),
        "nsga2": Sampler(
            lambda seed: NSGAIISampler(seed=seed, population_size=20),
            "non-dominated sorting genetic algorithm II (Optuna)",
        ),
        "nsga3": Sampler(
            _quietly(lambda seed: NSGAIIISampler(seed=seed, population_size=20)),
            "the same with reference points, for many objectives (Optuna)",
        ),
        "gp": Sampler(
            _quietly(lambda seed: GPSampler(seed=seed)),
            "Gaussian process with expected hypervolume improvement; about a second per proposal (Optuna)",
        ),
        "qmc": Sampler(
            _quietly(lambda seed: QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)),
            "Sobol' sequence: even cover of the space, methods drawn at random (Optuna)",
        ),
        "random": Sampler(lambda seed: RandomSampler(seed=seed), "uniform noise over the space: the control (Optuna)"),
        "nni_tpe": Sampler(
            partial(_nni, "tpe"), "tree-structured Parzen estimator behind ParEGO's weights (NNI)", "nni"
        ),
        "nni_evolution": Sampler(partial(_nni, "evolution"), "naive evolution behind ParEGO's weights (NNI)", "nni"),
        "nni_random": Sampler(partial(_nni, "random"), "uniform noise over the space (NNI)", "nni"),
    },
)
"""The registry (see `secateur.plugins`)."""


NNI = tuple(name for name, sampler in SAMPLERS.own.items() if sampler.extra == "nni")
"""Those that the engine nni takes; the engine optuna takes all."""


def refusal(name: str, engine: str) -> str | None:
    """Why a sampler cannot be used with an engine (optuna or nni) and what to do instead, or nothing. Unknown names pass."""
    if name.startswith("nni_") and (reason := BROKEN.get(name.removeprefix("nni_"))):
        return f"sampler '{name}' cannot be used: {reason}. Working: {', '.join(NNI)}."
    by_engine = engine == "nni"
    extra = engine if by_engine else SAMPLERS[name].extra if name in SAMPLERS else ""
    if extra and importlib.util.find_spec(extra) is None:  # an extra is named after the package that it brings
        who = "engine 'nni'" if by_engine else f"sampler '{name}'"
        return f"{who} needs the extra {extra}: pip install 'secateur[{extra}]'"
    if by_engine and name in SAMPLERS and name not in NNI:
        return f"sampler '{name}' is Optuna's; engine 'nni' takes {', '.join(NNI)}. Or set 'engine: optuna'."
    return None


optuna.logging.set_verbosity(optuna.logging.WARNING)
