"""Several fidelities: between search and recovery, fewer candidates are looked at with more effort.

Successive halving by non-dominated rank (Optuna's pruners refuse several objectives): first recalibration on more samples, then a
few steps of fine-tuning; of each rung one in `keep` goes on. The first fidelity, a part of the images, is raced inside the
search itself (`secateur.evaluators.racing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from pydantic import TypeAdapter

from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import choose_finalists, goals_on
from secateur.pipelines.state import RunFolder
from secateur.records import Evaluation, Fidelity, Job, Measurement, Rung, Trial
from secateur.search.audit import rank_correlation
from secateur.search.executor import Executor
from secateur.search.front import as_costs, ranks
from secateur.search.ledger import by_hypervolume, feasible, own

_EVALUATIONS: TypeAdapter[dict[str, Evaluation]] = TypeAdapter(dict[str, Evaluation])


def finalists_by_rungs(
    prepared: Prepared, trials: Sequence[Trial], dense: Mapping[str, Measurement], executor: Executor, run: RunFolder
) -> tuple[list[Trial], tuple[Rung, ...]]:
    """The trials to recover, and what each rung said. Without rungs those of most hypervolume on the front."""
    definition = prepared.definition
    settings, recover = definition.search.fidelities, definition.recover
    images = settings.calibration_images
    looks: list[tuple[str, Fidelity]] = []
    if recover is not None and images is not None:
        looks.append((f"{images} calibration samples", Fidelity(images)))
    if recover is not None and settings.steps is not None:
        looks.append((f"{settings.steps} training steps", Fidelity(images, settings.steps)))
    if recover is None or not looks:
        return choose_finalists(prepared, trials, dense), ()
    original = {t.number: t for t in trials}
    goals = goals_on(prepared, dense)
    remaining = [t for t in feasible(own(trials), goals) if t.arm != "dense"]
    remaining = best(prepared, remaining, dense, recover.finalists * settings.keep ** len(looks))
    rungs = []
    for i, (name, fidelity) in enumerate(looks):
        jobs = [Job(t.evaluation.candidate, fidelity=fidelity) for t in remaining]
        seen = _evaluated(jobs, executor, run, f"rung-{i + 1}")
        looked = [
            replace(t, evaluation=e) for t, e in zip(remaining, seen, strict=True) if e.complete
        ]  # one that fails here fails for good
        remaining = best(prepared, looked, dense, recover.finalists * settings.keep ** (len(looks) - i - 1))
        scores = {t.number: t.evaluation.measurements["accuracy"].value for t in looked}
        searched = [original[number].evaluation.measurements["accuracy"].value for number in scores]
        order = rank_correlation(searched, [*scores.values()])
        rungs.append(Rung(name, scores, tuple(t.number for t in remaining), order))
    return [original[t.number] for t in remaining], tuple(rungs)


def best(prepared: Prepared, trials: Sequence[Trial], dense: Mapping[str, Measurement], count: int) -> list[Trial]:
    """The best `count` by non-dominated rank; the rank that does not fit whole gives those that add the most hypervolume."""
    objectives, goals = prepared.definition.evaluator.objectives, goals_on(prepared, dense)
    rank = ranks(as_costs([t.evaluation for t in trials], objectives))
    chosen: list[Trial] = []
    for level in range(int(rank.max(initial=-1)) + 1):
        members = [trials[int(i)] for i in np.flatnonzero(rank == level)]
        left = count - len(chosen)
        chosen += members if len(members) <= left else by_hypervolume(members, objectives, dense, goals, left)
    return chosen


def _evaluated(jobs: Sequence[Job], executor: Executor, run: RunFolder, name: str) -> list[Evaluation]:
    """The evaluations of a rung, in order; what is on disk already is not done again."""
    file = run.path / f"{name}.json"
    done = _EVALUATIONS.validate_json(file.read_bytes()) if file.is_file() else {}
    left = [job for job in jobs if job.candidate.key not in done]
    under_way: dict[int, Job] = {}
    numbered = iter(enumerate(left))
    while True:
        while len(under_way) < executor.workers and (entry := next(numbered, None)) is not None:
            under_way[entry[0]] = entry[1]
            executor.submit(*entry)
        if not under_way:
            return [done[job.candidate.key] for job in jobs]
        number, evaluation = executor.wait()
        done[under_way.pop(number).candidate.key] = evaluation
        write(file, _EVALUATIONS.dump_json(done))
