"""Run a pipeline: the stages in order, each kept on disk when it is done, so that a killed run goes on where it was."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from secateur.compression.kept_groups import keep_groups
from secateur.compression.saliency import Saliencies
from secateur.compression.storage import weights_digest
from secateur.definition import PipelineDefinition, load_pipeline
from secateur.errors import DefinitionError, EvaluationFailed, NothingBetter, SecateurError, StateError, first_line
from secateur.evaluators.onnx_export import OUTPUT, input_names
from secateur.evaluators.self_comparison import compared, missing, widened
from secateur.execution import Inline, Pool
from secateur.execution.protocol import guarded
from secateur.files import write
from secateur.logs import logging_to
from secateur.pipelines.allowances import WithAllowances
from secateur.pipelines.budgets import check_budgets
from secateur.pipelines.calibration import calibrate
from secateur.pipelines.dashboard import show_finalists, show_registered
from secateur.pipelines.judgement import elect, judge, score_on_test
from secateur.pipelines.listener import Listener, logged, reporting, together
from secateur.pipelines.preparation import Prepared, check_device, prepare
from secateur.pipelines.recording import Found, record_of
from secateur.pipelines.recovering import Recovery, finalist_of, small_dense_of
from secateur.pipelines.rungs import finalists_by_rungs
from secateur.pipelines.stages import (
    dense_on,
    evaluation_of,
    problem_of,
    saliencies_of,
)
from secateur.pipelines.state import DATABASE, RunFolder, Stopwatch, find_run, locked, open_run, open_state
from secateur.records import ROLES, Candidate, Evaluation, Job, Measurement, Recovered, RunRecord, Version
from secateur.registry import DENSE, Package, Target, publish
from secateur.report import write_report
from secateur.search.dashboard import Original
from secateur.search.executor import Executor
from secateur.search.front import front
from secateur.search.ledger import Ledger, feasible, own
from secateur.search.loop import Stopping, search
from secateur.search.study import Study, storage_errors
from secateur.workloads.live import is_live
from secateur.workloads.roles import collect, digest

_RECORD: TypeAdapter[RunRecord] = TypeAdapter(RunRecord)
_MEASUREMENTS: TypeAdapter[Mapping[str, Measurement]] = TypeAdapter(Mapping[str, Measurement])
_VERSIONS: TypeAdapter[list[Version]] = TypeAdapter(list[Version])

LEAST_PREPARATION, SLOWER_PREPARATION = 600.0, 10.0
"""A worker that is not ready after so many seconds, and so many times what the driver itself needed, hangs."""


@dataclass(frozen=True)
class Outcome:
    """What a run ends with. versions: None where nothing was to be registered."""

    record: RunRecord
    folder: Path
    report: Path
    versions: list[Version] | None

    def require_better(self) -> None:
        """Raises NothingBetter where nothing passed the gate."""
        if not self.record.registered:
            raise NothingBetter(
                f"Nothing passed the gate: none of the {len(self.record.finalists)} finalists keeps "
                + ", ".join(goal.text for goal in self.record.goals)
                + f" and is on the front. {self._failures()}The report says what there was: {self.report}"
            )

    def _failures(self) -> str:
        """Why finalists failed, each reason once, with the names of those that it concerns."""
        names: dict[str, list[str]] = {}
        for finalist in self.record.finalists:
            if finalist.failure is not None:
                names.setdefault(finalist.failure, []).append(finalist.name)
        return "".join(f"{', '.join(failed)} failed: {reason.rstrip('.')}. " for reason, failed in names.items())

    def plain(self) -> dict[str, Any]:
        """As JSON takes it: what the run led to, without its trials (`secateur show RUN --json` has them)."""
        record = self.record
        return {
            "run": record.run_id,
            "folder": str(self.folder),
            "report": str(self.report),
            "best": record.knee,
            "finalists": [_plain(record, finalist) for finalist in record.finalists],
            "dense": {name: m.value for name, m in record.dense["selection"].items()},
            "versions": None if self.versions is None else [asdict(version) for version in self.versions],
        }


def _plain(record: RunRecord, finalist: Recovered) -> dict[str, Any]:
    return {
        "name": finalist.name,
        "passed": finalist in record.registered,
        "failure": finalist.failure,
        "measurements": {name: m.value for name, m in finalist.measurements.items()},
        "test": None if finalist.test is None else finalist.test.value,
    }


def check_training_device(device: str) -> None:
    """Raises StateError where CUDA is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StateError("--device cuda: torch sees no CUDA device here. Use --device cpu, or a torch build with CUDA.")


def run_pipeline(
    definition: PipelineDefinition,
    root: Path,
    pipeline: str,
    *,
    device: str = "cpu",
    fresh: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Run a definition, or go on with its unfinished run. pipeline: as the user called it, for `resume`.

    Raises the errors of `secateur.errors`: of a definition, workload or model before anything is written; StateError for disk
    trouble at any time; RegistryUnreachable after everything else is done. Where nothing passed the gate, the outcome says so.
    """
    listener = listener or Listener()
    check_training_device(device)
    check_live(definition)
    prior_front(root, definition)  # a run that is not there is refused before anything is written or computed
    open_state(root)
    listener.stage("check")
    with closing(prepare(definition, root, lasting=True, step=listener.step)) as prepared:
        check_device(prepared)
        run = open_run(root, definition, pipeline, _identity(prepared), fresh=fresh)
        return _drive(prepared, run, device, listener)


def resume_run(run: RunFolder, *, device: str = "cpu", listener: Listener | None = None) -> Outcome:
    """Go on with a run, from the definition it was started with (overrides included).

    Raises what `run_pipeline` raises, and StateError where the run is finished or where model or device are others by now.
    """
    listener = listener or Listener()
    if run.done:
        raise StateError(f"Run {run.run_id} is finished. See: secateur show {run.run_id}")
    check_training_device(device)
    definition, _ = load_pipeline(str(run.path / "definition.yaml"))
    root = Path(run.project)
    open_state(root)
    listener.stage("check")
    with closing(prepare(definition, root, groups=run.groups, lasting=True, step=listener.step)) as prepared:
        if run.identity != _identity(prepared):
            raise StateError(
                f"Run {run.run_id} was started with other weights or on another device, so its trials do not count here. Start a "
                f"new one: secateur run {run.pipeline}"
            )
        return _drive(prepared, run, device, listener)


def _identity(prepared: Prepared) -> str:
    """What must be the same for a run to go on: the weights, and what the figures are measured on."""
    return f"{weights_digest(prepared.model)[:16]} on {prepared.evaluator.device}"


def _drive(prepared: Prepared, run: RunFolder, device: str, listener: Listener) -> Outcome:
    listener = together(reporting(logged), listener)
    with locked(run), logging_to(run.log), storage_errors(run.state / DATABASE):
        record = read_record(run) if run.judged else _through_the_stages(prepared, run, device, listener)
        return _finish(run, record, listener)


def finish_run(run: RunFolder, listener: Listener | None = None) -> Outcome:
    """Register a run that has been judged: what is left after a tracking server was down. Sent once, however often it is called.

    Raises StateError where the run has not got that far, and what `run_pipeline` raises at its end.
    """
    record = read_record(run)
    with locked(run), logging_to(run.log), storage_errors(run.state / DATABASE):
        if run.done:
            return Outcome(record, run.path, run.path / "report.html", versions_of(run))
        return _finish(run, record, together(reporting(logged), listener or Listener()))


def _through_the_stages(prepared: Prepared, run: RunFolder, device: str, listener: Listener) -> RunRecord:
    watch = Stopwatch(run.path / "seconds.json")
    definition = prepared.definition
    searching = _engine(prepared, run, listener)
    write(run.dense_onnx, prepared.evaluator.files.dense.onnx)
    keep_groups(run.groups, prepared.found, prepared.model, prepared.workload.example_inputs)
    _save_example(prepared, run)
    with watch.stage("check"):
        listener.step("computing saliency")
        saliencies = saliencies_of(prepared, run)
        calibrate(prepared, saliencies, run)
    with _workers(prepared, saliencies, run) as pool:  # they prepare while the dense model is measured
        with watch.stage("check"):
            listener.step("measuring the dense model")
            dense_search = _dense(prepared, run, "search")
            problem = problem_of(prepared, saliencies, dense_search, prior_front(Path(run.project), definition))
            check_budgets(prepared, saliencies, problem.goals, dense_search)
        listener.prepared(prepared, run, dense_search)

        listener.stage("search")
        listener.step("starting workers, probing groups")
        search_settings = definition.search
        study = Study(
            run.state / DATABASE,
            run.run_id,
            prepared.space.parameters(),
            definition.evaluator.objectives,
            search_settings.sampler,
            search_settings.seed,
            Original.of(prepared.space, dense_search),
        )
        ledger = Ledger(problem, study, listener.trial)
        seconds = None if search_settings.minutes is None else 60 * search_settings.minutes - watch.spent("search")
        lending = WithAllowances(pool, prepared.evaluator.waiting, missing(compared([dense_search])))
        with watch.stage("search"):
            ended = searching(ledger, lending, Stopping(search_settings.trials, seconds, search_settings.patience))
            chosen, rungs = finalists_by_rungs(prepared, ledger.trials, dense_search, lending, run)

        listener.stage("recover")
        finalists = []
        with watch.stage("recover"):
            recovery = Recovery(prepared, run, device, watch, pool, listener.step)
            wanted = [finalist_of(prepared, saliencies, trial, number) for number, trial in enumerate(chosen, start=1)]
            for finalist in recovery.recovered(wanted, lambda n: partial(listener.epoch, n, len(chosen))):
                listener.recovered(finalist)
                finalists.append(finalist)

    listener.stage("gate")
    with watch.stage("gate"):
        listener.step("measuring the dense model on selection data")
        dense_selection = _dense(prepared, run, "selection")
        comparison = compared([dense_search, dense_selection])
        by = missing(comparison)
        dense_search, dense_selection = widened(dense_search, by), widened(dense_selection, by)
        finalists = [
            replace(f, measurements=widened(f.measurements, by), searched=widened(f.searched, by)) for f in finalists
        ]
        judged = judge(prepared, finalists, dense_selection, run)
        listener.step("scoring on test data")
        tested, dense_test = score_on_test(prepared, judged, dense_selection, run)
        best = elect(prepared, tested, dense_selection)
    small_dense = None
    if definition.search.baselines.small_dense and best is not None:
        listener.stage("recover")
        knee = next(f for f in tested if f.name == best)
        with watch.stage("recover"):
            baseline = small_dense_of(prepared, saliencies, knee)
            alone = Recovery(prepared, run, device, watch, step=listener.step)
            (small_dense,) = alone.recovered([baseline], lambda _: partial(listener.epoch, 1, 1))
        small_dense = replace(small_dense, measurements=widened(small_dense.measurements, by))
    dense = {"search": dense_search, "selection": dense_selection, "test": {"accuracy": dense_test}}
    found = Found(ledger, ended, rungs, tested, best, small_dense, comparison)
    record = record_of(prepared, run, found, dense, watch)
    report = write_report(record, run.path / "report.html")
    show_finalists(run, record, report)
    write(run.path / "record.json", _RECORD.dump_json(record, indent=1))
    return record


def _engine(prepared: Prepared, run: RunFolder, listener: Listener) -> Callable[[Ledger, Executor, Stopping], str]:
    """What drives the search. Raises DefinitionError where NNI's remote host cannot be used."""
    if prepared.definition.search.engine == "optuna":
        return search
    from secateur.pipelines.nni_search import nni_search  # an extra

    return nni_search(prepared, run, listener.experiment)


def _workers(prepared: Prepared, saliencies: Saliencies, run: RunFolder) -> AbstractContextManager[Executor]:
    """The processes that evaluate candidates of this run; a model that is in no file is evaluated in this one."""
    settings = prepared.definition.search
    if is_live(prepared.definition.workload):
        return nullcontext(Inline(partial(_evaluated, prepared, saliencies)))
    threads = max(1, (os.cpu_count() or 1) // settings.workers)
    command = [sys.executable, "-m", "secateur.pipelines.worker", str(run.path), "--training-threads", str(threads)]
    if settings.limits.memory_gb is not None:
        command += ["--memory-gb", str(settings.limits.memory_gb)]
    patience = max(LEAST_PREPARATION, SLOWER_PREPARATION * prepared.seconds)
    return Pool(command, settings.workers, run.path / "workers", seconds=settings.limits.seconds, preparation=patience)


def _evaluated(prepared: Prepared, saliencies: Saliencies, job: Job) -> Evaluation:
    """What a worker would do, in this process, whose number of threads is left as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if job.fidelity.steps else prepared.definition.evaluator.threads)
    try:
        return guarded(partial(evaluation_of, prepared, saliencies), job)
    finally:
        torch.set_num_threads(before)


def check_live(definition: PipelineDefinition) -> None:
    """Raises DefinitionError where a model that is in no file is to be evaluated in other processes."""
    search_settings = definition.search
    if not is_live(definition.workload):
        return
    for key, wanted in (("engine", "optuna"), ("workers", 1)):
        if getattr(search_settings, key) != wanted:
            raise DefinitionError(
                f"{search_settings.where(key)}: a model that lives in this process is evaluated in it: '{key}' must be {wanted}. "
                "Write a factory and a pipeline for anything else (`secateur init`)."
            )


def prior_front(root: Path, definition: PipelineDefinition) -> list[Candidate]:
    """The front that an earlier run of a project found, for `search.warm_start`.

    root: the project's folder. Raises DefinitionError where there is no such run, or where it is not finished.
    """
    name = definition.search.warm_start
    if name is None:
        return []
    try:
        record = read_record(find_run(root, name))
    except SecateurError as error:
        raise DefinitionError(
            f"{definition.search.where('warm_start')}: 'warm_start' must name an earlier run. {error}"
        ) from error
    sound = feasible(own(record.trials), record.goals)
    return [e.candidate for e in front([t.evaluation for t in sound if t.arm != "dense"], record.objectives)]


def _save_example(prepared: Prepared, run: RunFolder) -> None:
    """Two calibration samples and the dense model's answer: signature and input example of what is registered. Data digests."""
    inputs, _ = collect(prepared.workload.data.calibration, 2)
    with torch.no_grad():
        output = prepared.model(*inputs).numpy()
    arrays = {name: x.numpy() for name, x in zip(input_names(len(inputs)), inputs, strict=True)}
    buffer = io.BytesIO()
    np.savez(buffer, **{OUTPUT: output, **arrays})
    write(run.path / "example.npz", buffer.getvalue())
    if not (run.path / "data.json").is_file():
        digests = {role: digest(getattr(prepared.workload.data, role)) for role in ROLES}
        write(run.path / "data.json", json.dumps(digests))


def _dense(prepared: Prepared, run: RunFolder, role: str) -> Mapping[str, Measurement]:
    """The dense model's figures, measured once per run."""
    file = run.folder(DENSE) / f"{role}.json"
    if file.is_file():
        return _MEASUREMENTS.validate_json(file.read_bytes())
    try:
        measured = dense_on(prepared, role)
    except EvaluationFailed as error:
        raise StateError(f"The dense model itself cannot be measured: {error}") from error
    write(file, _MEASUREMENTS.dump_json(measured, indent=1))
    return measured


def _finish(run: RunFolder, record: RunRecord, listener: Listener) -> Outcome:
    report = run.path / "report.html"
    versions: list[Version] | None = None
    register = record.definition.get("register")
    if register is not None:
        listener.stage("register")
        with np.load(run.path / "example.npz", allow_pickle=False) as stored:
            arrays = dict(stored)
        output = arrays.pop(OUTPUT)
        digests = json.loads((run.path / "data.json").read_text(encoding="utf-8"))
        package = Package(record, run.path, run.state, arrays, output, digests)
        uri = register["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
        published = publish(package, Target(register["name"], register["alias"], uri))
        versions = published.versions
        write_report(record, report, versions)
        show_registered(run, record, published)
        write(run.path / "registry.json", _VERSIONS.dump_json(versions, indent=1))
    write(run.path / "done", "")
    return Outcome(record, run.path, report, versions)


def read_record(run: RunFolder) -> RunRecord:
    """A finished run's record. Raises StateError where the run has not got that far."""
    if not run.judged:
        raise StateError(f"Run {run.run_id} is not finished. Go on with: secateur resume {run.run_id}")
    try:
        return _RECORD.validate_json((run.path / "record.json").read_bytes())
    except ValidationError as error:
        raise StateError(
            f"{run.path / 'record.json'} was written by another version of secateur, or is damaged: {first_line(error)}. Its "
            f"report is still there: {run.path / 'report.html'}"
        ) from error


def versions_of(run: RunFolder) -> list[Version] | None:
    """What the run has registered, None where nothing has been sent yet."""
    file = run.path / "registry.json"
    return _VERSIONS.validate_json(file.read_bytes()) if file.is_file() else None
