from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from secateur.definition import PipelineDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.catalogue import CATALOGUE
from secateur.pipelines.names import check_names
from secateur.search.front import hypervolume
from secateur.search.nni.names import BROKEN
from secateur.search.nni.sampler import NniSampler
from secateur.search.nni.tuners import TUNERS, Scored
from secateur.search.samplers import NNI, SAMPLERS, refusal

HARM = np.random.default_rng(99).lognormal(-1.5, 1.0, 8)
SPACE = {f"g{i}.removed": FloatDistribution(0.0, 0.9) for i in range(8)}
SPACE["g0.method"] = CategoricalDistribution(("l1", "l2", "fpgm"))


def figures(params):
    harm = HARM * [1.0 if params["g0.method"] == "l2" else 1.5, *[1.0] * 7]
    removed = np.array([params[f"g{i}.removed"] for i in range(8)])
    return float(np.exp(-(harm * removed**2).sum())), float(1 - removed.mean())


def new_study(sampler):
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def drive(study, count, floor=0.0, space=SPACE):
    """Ask and tell; accuracies below the floor are infeasible. Returns the asked values."""
    asked = []
    for _ in range(count):
        trial = study.ask(space)
        accuracy, size = figures(trial.params)
        trial.set_constraint("accuracy", floor - accuracy)
        study.tell(trial, [accuracy, size])
        asked.append(dict(trial.params))
    return asked


def volume(tuner, seed):
    """Hypervolume after 120 trials, of (accuracy lost, size) below (1, 1)."""
    study = new_study(NniSampler(tuner, seed))
    drive(study, 120)
    return hypervolume(np.array([[1 - a, s] for a, s in (t.values for t in study.trials)]), np.ones(2))


def test_tuners_that_learn_find_more_than_noise():
    """Fixed seeds, so the same figures at every run: .51 and .51 against .49, with a spread of .01 between seeds."""
    means = {tuner: np.mean([volume(tuner, seed) for seed in range(3)]) for tuner in TUNERS}
    assert min(means["tpe"], means["evolution"]) > 1.02 * means["random"], means


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_study_that_was_refilled_is_asked_from_with_all_that_it_holds(tuner):
    """The loop's restart: an in-memory study filled with finished trials. Same seed and same past, same next ask."""
    first = new_study(NniSampler(tuner, 1))
    drive(first, 15)
    asks = []
    for _ in range(2):
        again = new_study(NniSampler(tuner, 7))
        again.add_trials(first.trials)
        asks.append(drive(again, 6))
    assert asks[0] == asks[1]
    assert not [values for values in asks[0] if values in [t.params for t in first.trials]]


@pytest.mark.parametrize("tuner", TUNERS)
def test_values_are_plain_and_go_into_json(tuner):
    study = new_study(NniSampler(tuner, 0))
    drive(study, 15)
    for values in drive(study, 5):
        assert all(type(v) in (float, str) for v in values.values())
        assert json.loads(json.dumps(values)) == values


def test_failed_and_running_trials_are_not_told(monkeypatch):
    seen = []
    monkeypatch.setitem(TUNERS, "tpe", lambda space, s, seed: seen.append(s) or TUNERS["random"](space, s, seed))
    study = new_study(NniSampler("tpe", 0))
    drive(study, 3)
    study.tell(study.ask(SPACE), state=optuna.trial.TrialState.FAIL)
    study.ask(SPACE)
    study.ask(SPACE)
    assert [len(s) for s in seen] == [1, 2, 3, 3, 3]


def test_infeasible_trials_are_told_as_worse(monkeypatch):
    seen = []
    monkeypatch.setitem(TUNERS, "tpe", lambda space, s, seed: seen.append(s) or TUNERS["random"](space, s, seed))
    study = new_study(NniSampler("tpe", 0))
    drive(study, 20, floor=0.6)
    study.ask(SPACE)
    feasible = [figures(t.params)[0] >= 0.6 for t in study.trials[:20]]
    assert 0 < sum(feasible) < 20
    losses = [scored.loss for scored in seen[-1]]
    assert max(v for v, f in zip(losses, feasible, strict=True) if f) < min(
        v for v, f in zip(losses, feasible, strict=True) if not f
    )


def test_a_parameter_without_a_choice_is_left_to_optuna():
    space = {**SPACE, "only": CategoricalDistribution(("x",))}
    study = new_study(NniSampler("tpe", 0))
    assert {values["only"] for values in drive(study, 12, space=space)} == {"x"}


def test_other_distributions_are_refused_by_name():
    study = new_study(NniSampler("tpe", 0))
    study.add_trial(
        optuna.trial.create_trial(
            values=[0.0, 0.0], params={"width": 3}, distributions={"width": IntDistribution(1, 8)}
        )
    )
    with pytest.raises(TypeError, match="'width': NNI's tuners are given continuous and categorical parameters"):
        study.ask({"width": IntDistribution(1, 8)})


def test_evolution_changes_one_parameter_of_a_good_trial_and_no_global_state():
    space = {"a": {"_type": "uniform", "_value": [0, 1]}, "b": {"_type": "choice", "_value": [0, 1, 2]}}
    seen = [Scored({"a": i / 20, "b": i % 3}, float(i)) for i in range(20)]
    state = random.getstate()
    for seed in range(20):
        values = TUNERS["evolution"](space, seen, seed)
        parents = [s for s in seen[:5] if s.values["a"] == values["a"] or s.values["b"] == values["b"]]
        assert parents, "it breeds from the five best"
    assert random.getstate() == state


def test_nothing_is_printed(capfd):
    drive(new_study(NniSampler("tpe", 0)), 12)
    assert capfd.readouterr().out == ""


def test_without_nni_the_definition_is_refused_at_its_line(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "nni" else real(name, *a))
    definition = PipelineDefinition.model_validate(
        {
            "name": "x",
            "workload": {"factory": "secateur.workloads.digits:workload"},
            "search_space": {"groups": [{"methods": ["l1"]}]},
            "evaluator": {"objectives": {"accuracy": "maximize"}},
            "search": {"sampler": "nni_tpe"},
        }
    )
    with pytest.raises(DefinitionError) as caught:
        check_names(definition, None)
    assert str(caught.value).endswith("sampler 'nni_tpe' needs the extra nni: pip install 'secateur[nni]'")
    assert {refusal(name, "optuna") for name in SAMPLERS if not SAMPLERS[name].extra} == {None}
    assert refusal("nni_tpe", "nni") == "engine 'nni' needs the extra nni: pip install 'secateur[nni]'"


@pytest.mark.parametrize("engine", ["optuna", "nni"])
@pytest.mark.parametrize("name", BROKEN)
def test_samplers_that_do_not_work_are_refused_with_the_reason(name, engine):
    assert refusal(f"nni_{name}", engine) == (
        f"sampler 'nni_{name}' cannot be used: {BROKEN[name]}. Working: nni_tpe, nni_evolution, nni_random."
    )


def test_each_engine_takes_its_samplers():
    assert [name for name in SAMPLERS if refusal(name, "nni") is None] == list(NNI)
    assert [name for name in SAMPLERS if refusal(name, "optuna") is None] == list(SAMPLERS)
    assert refusal("tpe", "nni") == (
        "sampler 'tpe' is Optuna's; engine 'nni' takes nni_tpe, nni_evolution, nni_random. Or set 'engine: optuna'."
    )
    assert refusal("tpee", "nni") is None, "a misspelt name is somebody else's to explain"


def test_the_catalogue_names_the_extra():
    assert {e["name"]: e["extra"] for e in CATALOGUE["samplers"](Path())} == {
        name: "nni" if name.startswith("nni_") else "" for name in SAMPLERS
    }
