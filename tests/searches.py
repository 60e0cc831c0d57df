"""Searches on the invented network: a study in a folder, and a whole search of it."""

from __future__ import annotations

import dataclasses

import torch

from invented import HARM, OBJECTIVES, evaluate, exact, make_space, resolve, worker
from secateur.execution import Inline
from secateur.records import Goal
from secateur.search.ledger import Ledger, Problem
from secateur.search.loop import Stopping, search
from secateur.search.study import Study, Subject

GOALS = (Goal("accuracy", "at_least", 0.8, 0.5, "accuracy at least 0.8"),)


def problem(space=None, **changes):
    space = space or make_space()
    saliencies = {name: {m: torch.linspace(0, 1, 32) for m in ("l1", "l2")} for name in HARM}
    dense = evaluate(space.dense()).measurements
    return dataclasses.replace(Problem(space, OBJECTIVES, resolve, exact, dense, GOALS, saliencies), **changes)


def study(folder, name="s", sampler="tpe", seed=0, space=None, objectives=None):
    space = space or make_space()
    subject = Subject(space, objectives or OBJECTIVES, {})
    return Study(folder / "studies.db", name, subject, sampler, seed)


def run(folder, budget, *, evaluate=evaluate, evaluated=None, stopping=None, executor=None, **changes):
    """One search; returns its ledger. evaluated: keys are added to it as they are evaluated."""
    opening = {k: changes.pop(k) for k in ("name", "sampler", "seed") if k in changes}
    made = problem(**changes)

    def counted(job):
        if evaluated is not None and not job.fidelity.probe:
            evaluated.append(job.candidate.key)
        return worker(job, evaluate)

    ledger = Ledger(made, study(folder, space=made.space, objectives=made.objectives, **opening))
    ledger.ended = search(ledger, executor or Inline(counted), stopping or Stopping(budget))
    return ledger
