"""NNI experiments in the sampler's place. The study stays the record: every trial that ends is told to the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from secateur.errors import DeviceLost, StateError, first_line
from secateur.records import Candidate, Evaluation
from secateur.search.ledger import Ledger, Problem
from secateur.search.loop import Stopping
from secateur.search.nni.experiment import Experiment, Finished
from secateur.search.nni.names import DEVICE_LOST
from secateur.search.nni.settings import ExperimentSettings
from secateur.search.parego import score
from secateur.search.study import Pending, Proposal
from secateur.search_spaces import Parameter

FAILED_STARTS = 3
"""Trials without a result at the start of an experiment after which it counts as broken."""

_EVALUATION: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class Arrangement:
    """How experiments are set up. settings: the seed is counted on by what is known.

    arguments: of the trials' interpreter, run in (a copy of) code_folder. on_start: told the web interface's address.
    """

    settings: ExperimentSettings
    arguments: Sequence[str]
    code_folder: Path
    on_start: Callable[[str], None]


def search_by_nni(
    ledger: Ledger, arrangement: Arrangement, stopping: Stopping, clock: Callable[[], float] = time.monotonic
) -> str:
    """Let NNI choose and run what is left of a search. Returns why it ended.

    The experiment itself has no end: repeats of known networks are free, and NNI would count them. Trials that are under way when
    the search ends are given up.

    Raises ExperimentBroken where manager, tuner or remote host are gone, DeviceLost where a trial cannot measure, StateError where
    no trial can start, and DefinitionError for a remote host without a known key. What has been told is kept.
    """
    started = clock()
    reason = stopping.reason(ledger, 0, 0.0)
    if reason is not None:
        return reason
    # With the seed of an earlier experiment the tuner would repeat its first trials.
    settings = replace(arrangement.settings, seed=(arrangement.settings.seed + len(ledger.trials)) % 2**32)
    space = nni_space(ledger.problem.space.parameters())
    alive = False
    failed: list[Finished] = []  # told once another trial has shown that trials can succeed
    with Experiment(settings, space, arrangement.arguments, arrangement.code_folder) as experiment:
        arrangement.on_start(experiment.start(seen(ledger)))
        for finished in experiment.finished():
            if finished.failure is not None and finished.failure.startswith(DEVICE_LOST):
                raise DeviceLost(
                    finished.failure.removeprefix(DEVICE_LOST)
                )  # nobody's evaluation: the search is suspended
            alive = alive or finished.failure is None
            if not alive:
                failed.append(finished)
                if len(failed) == FAILED_STARTS:
                    raise StateError(
                        f"The first {FAILED_STARTS} trials of the NNI experiment ended without a result, the last one with: "
                        f"{finished.failure}. They are not kept; the logs are in {experiment.logs}."
                    )
                continue
            for ended in (*failed, finished):
                mirror(ledger, ended)
                reason = stopping.reason(ledger, 0, clock() - started)
                if reason is not None:
                    return reason
            failed = []
    return "NNI's tuner has nothing more to try"


def mirror(ledger: Ledger, finished: Finished) -> None:
    """Tell a trial of NNI's to the ledger."""
    problem = ledger.problem
    candidate = problem.space.candidate(finished.values)
    ledger.tell(
        Pending(Proposal(candidate), finished.values),
        problem.resolve(candidate).key,
        evaluation_in(finished, candidate),
    )


def evaluation_in(finished: Finished, candidate: Candidate) -> Evaluation:
    """What a trial has found out: the evaluation that it sent, or why there is none."""
    sent = finished.result or finished.partial
    if sent is None:
        stopped = "NNI's assessor stopped it before it had reported anything" if finished.stopped else None
        return Evaluation(candidate, "", {}, finished.failure, stopped=stopped)
    try:
        evaluation = _EVALUATION.validate_json(sent["evaluation"])
    except (KeyError, ValidationError) as error:
        return Evaluation(candidate, "", {}, f"the trial's result cannot be read: {first_line(error)}")
    if finished.stopped:
        return replace(evaluation, stopped="NNI's assessor stopped it: below the median after a part of the data")
    return evaluation


def seen(ledger: Ledger) -> list[tuple[dict[str, Any], float]]:
    """What the ledger holds, for the tuner: values and score of each network that was looked at."""
    space, objectives = ledger.problem.space, ledger.problem.objectives
    looked_at = [
        t.evaluation
        for t in ledger.trials
        if t.same_as is None
        and (t.evaluation.failure is not None or objectives.keys() <= t.evaluation.measurements.keys())
    ]
    return [(space.values(evaluation.candidate), score_in(ledger.problem, evaluation)) for evaluation in looked_at]


def score_in(problem: Problem, evaluation: Evaluation) -> float:
    """The one number that a tuner is told."""
    return score(evaluation, problem.objectives, problem.dense, problem.goals, problem.seed)


def nni_space(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The search space in NNI's words."""
    return {
        p.name: {"_type": "choice", "_value": list(p.names)}
        if p.names
        else {"_type": "uniform", "_value": [p.low, p.high]}
        for p in parameters
    }
