"""The stages of a run in order, from saliency to the judged record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from secateur.compression.kept_groups import keep_groups
from secateur.compression.saliency import Saliencies
from secateur.errors import StateError
from secateur.evaluators.self_comparison import compared as with_itself
from secateur.evaluators.self_comparison import missing, widened
from secateur.execution import Pool
from secateur.files import write
from secateur.pipelines.allowances import WithAllowances
from secateur.pipelines.budgets import check_budgets
from secateur.pipelines.calibration import calibrate
from secateur.pipelines.champion import compared
from secateur.pipelines.dashboard import show_finalists
from secateur.pipelines.evaluating import workers
from secateur.pipelines.finalists import finalist_of, small_dense_of
from secateur.pipelines.gathering import give_grams
from secateur.pipelines.judgement import elect, judge, score_on_test
from secateur.pipelines.listener import Listener
from secateur.pipelines.original import dense_figures, save_digests, save_example
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.quantizing import give_int8, int8_twins, name_of
from secateur.pipelines.ranking import scored
from secateur.pipelines.reading import RECORD, prior_front
from secateur.pipelines.recording import Judged, Results, Searched, record_of
from secateur.pipelines.recovering import Recovery
from secateur.pipelines.replaying import Replaying, shortcoming
from secateur.pipelines.rungs import Rungs
from secateur.pipelines.sparse_training import give_sparse
from secateur.pipelines.stages import problem_of, saliencies_of
from secateur.pipelines.state import DATABASE, RunFolder, Stopwatch
from secateur.records import Comparison, Measurement, Recovered, RunRecord, Trial
from secateur.registry import DENSE
from secateur.report.page import write_report
from secateur.search.executor import Executor
from secateur.search.ledger import Ledger, Problem
from secateur.search.loop import TIME_UP, Stopping, search
from secateur.search.study import Study, Subject

Figures = Mapping[str, Measurement]
Engine = Callable[[Ledger, Executor, Stopping], str]
"""What drives a search. Returns why it ended."""


class Driver:
    """Takes one run through its stages; what an earlier process has done of them is read from disk."""

    def __init__(
        self, prepared: Prepared, run: RunFolder, device: str, listener: Listener, ends: float | None = None
    ) -> None:
        """device: that finalists are trained on. ends: on `time.monotonic`, when a search must be over."""
        self._prepared, self._run, self._device, self._listener = prepared, run, device, listener
        self._watch, self._replaying, self._ends = Stopwatch(run.path / "seconds.json"), Replaying(run), ends

    def through(self) -> RunRecord:
        """All stages up to the gate. Returns the record, which lies in the run's folder with its report."""
        prepared, run, watch = self._prepared, self._run, self._watch
        engine = _engine(prepared, run, self._listener)
        write(run.dense_onnx, prepared.evaluator.files.dense.onnx)
        keep_groups(run.groups, prepared.found, prepared.model, prepared.workload.example_inputs)
        save_example(prepared, run)
        save_digests(prepared, run)
        with watch.stage("check"):
            if prepared.definition.sparse_training is not None:
                with watch.stage("check.sparse_training"):
                    give_sparse(prepared, run.sparse, self._device, self._listener.step)
            self._listener.step("gathering what layers read")
            give_grams(prepared, run.grams)
            self._listener.step("computing saliency")
            saliencies = saliencies_of(prepared, run)
            prepared = self._prepared = replace(prepared, space=scored(prepared.space, saliencies))
            if prepared.definition.int8:
                self._listener.step("quantizing the original")
                give_int8(prepared, run.folder("finalists", name_of(DENSE)))
        results = self._replayed(saliencies)
        if results is None:
            with watch.stage("check"):
                calibrate(prepared, saliencies, run)
            with self._workers() as pool:
                searched = self._search(engine, self._problem(saliencies), pool)
                if searched.ended == TIME_UP and not searched.chosen and self._left() == 0:
                    raise StateError(
                        "The deadline has left no time for a search to find a network. What was evaluated is kept, and the same "
                        "command goes on; with a later deadline it comes further."
                    )
                finalists = self._recover(saliencies, searched.chosen, pool)
            results = self._judged(searched, finalists)
        run.grams.unlink(missing_ok=True)
        results = replace(results, small_dense=self._small_dense(results.judged), replay=self._replaying.replay)
        record = record_of(prepared, run, results, watch)
        report = write_report(record, run.path / "report.html")
        show_finalists(run, record, report)
        write(run.path / "record.json", RECORD.dump_json(record))
        return record

    def _replayed(self, saliencies: Saliencies) -> Results | None:
        """What the choice that serves leads to on the new weights. None where there is none, or where it is not good enough."""
        replaying = self._replaying
        if not replaying.wanted:
            return None
        with self._workers(few=True) as pool:
            searched = self._search(replaying.engine, self._problem(saliencies), pool, "replay")
            if not replaying.wanted:
                return None
            finalists = self._recover(saliencies, searched.chosen, pool)
        results = self._judged(searched, finalists)
        reason = shortcoming(searched.ledger.trials, results.judged, results.comparison)
        if reason is None or self._left() == 0:
            return results
        replaying.refuse(reason)
        return None

    def _left(self) -> float | None:
        """Seconds in which a search must be over, None where nothing limits it."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def _workers(self, *, few: bool = False) -> AbstractContextManager[Executor]:
        """The processes of the search, which train finalists too; they prepare while the dense model is measured."""
        return workers(self._prepared, self._run, self._device, few=few)

    def _judged(self, searched: Searched, finalists: list[Recovered]) -> Results:
        """What the chosen networks have become."""
        if self._prepared.definition.int8:
            finalists += self._quantize(finalists)
        judged = self._judge(finalists, searched.ledger.problem.dense)
        return Results(searched, judged, self._compared(judged))

    def _problem(self, saliencies: Saliencies) -> Problem:
        prepared, run = self._prepared, self._run
        with self._watch.stage("check"):
            self._listener.step("measuring the dense model")
            dense = dense_figures(prepared, run, "search")
            replay = self._replaying.replay
            if replay is None:
                prior = prior_front(Path(run.project), prepared.definition)
            else:
                prior = [c for c in replay.precedent.front if prepared.space.adapted(c) is not None]
            problem = problem_of(prepared, saliencies, dense, prior)
            check_budgets(prepared, saliencies, problem.goals, dense)
        self._listener.prepared(prepared, run, dense)
        return problem

    def _search(self, engine: Engine, problem: Problem, pool: Executor, stage: str = "search") -> Searched:
        prepared, run, settings = self._prepared, self._run, self._prepared.definition.search
        self._listener.stage(stage)
        self._listener.step("starting workers, probing groups")
        subject = Subject(problem.space, problem.objectives, problem.dense)
        study = Study(run.state / DATABASE, run.run_id, subject, settings.sampler, settings.seed)
        ledger = Ledger(problem, study, self._listener.trial)
        allowed = None if settings.minutes is None else 60 * settings.minutes - self._watch.spent("search")
        seconds = min((limit for limit in (allowed, self._left()) if limit is not None), default=None)
        lending = WithAllowances(pool, prepared.evaluator.waiting, missing(with_itself([problem.dense])))
        with self._watch.stage("search"):
            ended = engine(ledger, lending, Stopping(settings.trials, seconds, settings.patience))
            with self._watch.stage("search.rungs"):
                fidelities = Rungs(prepared, problem, pool, run, self._listener.step)
                chosen, rungs = fidelities.finalists(ledger.trials)
        return Searched(ledger, ended, chosen, rungs)

    def _recover(self, saliencies: Saliencies, chosen: Sequence[Trial], pool: Executor) -> list[Recovered]:
        listener = self._listener
        finalists: list[Recovered] = []
        listener.stage("recover" if self._prepared.definition.recover else "refit")
        with self._watch.stage("recover"):
            processes = pool if isinstance(pool, Pool) else None
            recovery = Recovery(self._prepared, self._run, self._device, self._watch, listener.step, processes)
            wanted = [finalist_of(self._prepared, saliencies, trial, n) for n, trial in enumerate(chosen, start=1)]
            for finalist in recovery.recovered(wanted, lambda n: partial(listener.epoch, n, len(chosen))):
                listener.recovered(finalist)
                finalists.append(finalist)
        return finalists

    def _quantize(self, finalists: Sequence[Recovered]) -> list[Recovered]:
        """The int8 twins of finalists and of the original."""
        listener = self._listener
        twins: list[Recovered] = []
        listener.stage("quantize")
        with self._watch.stage("recover"):
            recovery = Recovery(self._prepared, self._run, self._device, self._watch, listener.step)
            for twin in int8_twins(recovery, finalists):
                listener.recovered(twin)
                twins.append(twin)
        return twins

    def _judge(self, finalists: Sequence[Recovered], dense_search: Figures) -> Judged:
        prepared, run = self._prepared, self._run
        self._listener.stage("gate")
        with self._watch.stage("gate"):
            self._listener.step("measuring the dense model on selection data")
            dense_selection = dense_figures(prepared, run, "selection")
            comparison = with_itself([dense_search, dense_selection])
            by = missing(comparison)
            dense_search, dense_selection = widened(dense_search, by), widened(dense_selection, by)
            finalists = [
                replace(f, measurements=widened(f.measurements, by), searched=widened(f.searched, by))
                for f in finalists
            ]
            finalists, verdicts = judge(prepared, finalists, dense_selection, run)
            self._listener.step("scoring on test data")
            passed = [f for f in finalists if f.name in verdicts and verdicts[f.name].passed]
            verdicts |= score_on_test(prepared, passed, verdicts, dense_selection, run)
            best = elect(prepared, [f for f in passed if verdicts[f.name].veto is None], dense_selection)
            dense_test = prepared.evaluator.measure(prepared.evaluator.files.dense, "test", ["accuracy"])
        dense = {"search": dense_search, "selection": dense_selection, "test": dense_test}
        return Judged(finalists, verdicts, best, dense, comparison)

    def _compared(self, judged: Judged) -> Comparison | None:
        """The best finalist beside the version that serves, where the definition has a gate."""
        best = next((f for f in judged.finalists if f.name == judged.best), None)
        if best is None:
            return None
        with self._watch.stage("gate"):
            self._listener.step("comparing the knee with the version that serves")
            return compared(self._prepared, self._run, best)

    def _small_dense(self, judged: Judged) -> Recovered | None:
        """The best finalist's widths, trained from scratch, where the definition asks for it."""
        if not self._prepared.definition.search.baselines.small_dense or judged.best is None:
            return None
        self._listener.stage("recover")
        knee = next(f for f in judged.finalists if f.name == judged.best)
        with self._watch.stage("recover"):
            baseline = small_dense_of(self._prepared, knee, self._run.path / knee.compressed)
            alone = Recovery(self._prepared, self._run, self._device, self._watch, self._listener.step)
            (trained,) = alone.recovered([baseline], lambda _: partial(self._listener.epoch, 1, 1))
        return replace(trained, measurements=widened(trained.measurements, missing(judged.self_comparison)))


def _engine(prepared: Prepared, run: RunFolder, listener: Listener) -> Engine:
    """What drives the search. Raises DefinitionError where NNI's remote host cannot be used."""
    if prepared.definition.search.engine == "optuna":
        return search
    from secateur.pipelines.nni_search import nni_search  # an extra

    return nni_search(prepared, run, listener.experiment)
