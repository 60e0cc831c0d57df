"""Several fidelities: between search and recovery, fewer candidates are looked at with more effort.

Successive halving by non-dominated rank (Optuna's pruners refuse several objectives): first, where it is asked for, recalibration
on more samples, then a little training, twice by default; of each rung one in `keep` goes on, so that the second one costs about
what the first one does. The first fidelity, a part of the images, is raced inside the search itself (`secateur.evaluators.racing`).

Source: Jamieson & Talwalkar 2016 (successive halving), arXiv:1502.07943; selection after a little training as in Tang et al. 2025
(DarwinLM), arXiv:2502.07780.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from secateur.definition import FidelitiesDefinition
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import choose_finalists, goals_on
from secateur.pipelines.state import RunFolder
from secateur.records import Evaluation, Fidelity, Job, Rung, Trial, earlier
from secateur.recovery.fine_tune import steps_of
from secateur.search.audit import rank_correlation
from secateur.search.executor import Executor
from secateur.search.front import as_costs, ranks
from secateur.search.ledger import Problem, by_hypervolume, feasible, own

_EVALUATIONS: TypeAdapter[list[Evaluation]] = TypeAdapter(list[Evaluation])


def share_of_rungs(settings: FidelitiesDefinition) -> float:
    """Training on all rungs, as a share of the finalists' own."""
    last = len(settings.training)
    return sum((share * settings.keep ** (last - rung) for rung, share in enumerate(settings.training)), 0.0)


@dataclass(frozen=True)
class Rungs:
    """The rungs of one run. step: is told which rung begins."""

    prepared: Prepared
    problem: Problem
    executor: Executor
    run: RunFolder
    step: Callable[[str], None] = lambda _: None

    def finalists(self, trials: Sequence[Trial]) -> tuple[list[Trial], tuple[Rung, ...]]:
        """The trials to recover, and what each rung said. Without rungs those of most hypervolume on the front."""
        definition, looks = self.prepared.definition, self._looks()
        sound = {
            t.number: t for t in feasible(own(trials), goals_on(self.prepared, self.problem.dense)) if t.arm != "dense"
        }
        if definition.recover is None or not looks or len(sound) <= definition.recover.finalists:
            return choose_finalists(self.prepared, trials, self.problem.dense), ()
        room = [
            definition.recover.finalists * definition.search.fidelities.keep**left for left in range(len(looks) + 1)
        ]
        remaining = self._best([*sound.values()], room.pop())
        rungs = []
        for number, (name, fidelity) in enumerate(looks, start=1):
            if len(remaining) <= (places := room.pop()):
                continue
            self.step(f"{len(remaining)} networks, {name}")
            looked = self._looked(remaining, fidelity, f"rung-{number}")
            scores = {t.number: t.evaluation.measurements["accuracy"].value for t in looked}
            searched = [sound[n].evaluation.measurements["accuracy"].value for n in scores]
            remaining = [sound[t.number] for t in self._best(looked, places)]
            passed = tuple(t.number for t in remaining)
            rungs.append(Rung(name, scores, passed, rank_correlation(searched, [*scores.values()])))
        return remaining, tuple(rungs)

    def _looks(self) -> list[tuple[str, Fidelity]]:
        """What is done on each rung: its name, for people, and how closely candidates are evaluated."""
        definition = self.prepared.definition
        if definition.recover is None:
            return []
        images = definition.search.fidelities.calibration_images
        looks = [] if images is None else [(f"{images} calibration samples", Fidelity(images))]
        if definition.recover.minutes is not None:  # which does not say how many steps there are to take a share of
            return looks
        whole = steps_of(self.prepared.workload, definition.recover)
        for share in definition.search.fidelities.training:
            steps = max(1, round(share * whole))
            looks.append((f"{steps} training step{'s' * (steps > 1)}", Fidelity(images, steps)))
        return looks

    def _best(self, trials: Sequence[Trial], count: int) -> list[Trial]:
        """The best by non-dominated rank; the rank that does not fit whole gives those that add the most hypervolume."""
        objectives = self.prepared.definition.evaluator.objectives
        goals = goals_on(self.prepared, self.problem.dense)
        rank = ranks(as_costs([t.evaluation for t in trials], objectives))
        chosen: list[Trial] = []
        for level in range(int(rank.max(initial=-1)) + 1):
            members = [trials[int(i)] for i in np.flatnonzero(rank == level)]
            left = count - len(chosen)
            fits = len(members) <= left
            chosen += members if fits else by_hypervolume(members, objectives, self.problem.dense, goals, left)
        return chosen

    def _looked(self, trials: Sequence[Trial], fidelity: Fidelity, name: str) -> list[Trial]:
        """The trials with new figures in place of the search's, but for the device's; one that fails here is left out for good."""
        candidates = [t.evaluation.candidate for t in trials]
        jobs = [Job(c, self.problem.resolve(c), fidelity=fidelity) for c in candidates]
        seen = self._evaluated(jobs, name)
        return [
            replace(t, evaluation=replace(e, measurements={**t.evaluation.measurements, **e.measurements}))
            for t, e in zip(trials, seen, strict=True)
            if e.complete
        ]

    def _evaluated(self, jobs: Sequence[Job], name: str) -> list[Evaluation]:
        """The evaluations of a rung, in order; what is on disk already is not done again."""
        file = self.run.path / f"{name}.json"
        done = {e.candidate.key: e for e in _read(file)} if file.is_file() else {}
        left = [job for job in jobs if job.candidate.key not in done]
        under_way: dict[int, Job] = {}
        numbered = iter(enumerate(left))
        while True:
            while len(under_way) < self.executor.workers and (entry := next(numbered, None)) is not None:
                under_way[entry[0]] = entry[1]
                self.executor.submit(*entry)
            if not under_way:
                return [done[job.candidate.key] for job in jobs]
            number, evaluation = self.executor.wait()
            done[under_way.pop(number).candidate.key] = evaluation
            write(file, _EVALUATIONS.dump_json([*done.values()]))


def _read(file: Path) -> list[Evaluation]:
    return _EVALUATIONS.validate_python(earlier.evaluations(json.loads(file.read_bytes())))
