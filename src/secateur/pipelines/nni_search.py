"""The search with `engine: nni`: the start phases in our own workers, what follows in NNI's experiments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from secateur.definition import NniDefinition, SearchDefinition
from secateur.errors import DefinitionError
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.search.executor import Executor
from secateur.search.ledger import Ledger
from secateur.search.loop import PHASES_DONE, Stopping, search
from secateur.search.nni.engine import Arrangement, search_by_nni
from secateur.search.nni.settings import ExperimentSettings, RemoteMachine

NEEDED = ("definition.yaml", "groups.json", "saliency.safetensors", "dense/model.onnx", "dense/search.json")
"""Of a run's folder, what a trial reads. It is all that goes to a remote host."""


def nni_search(
    prepared: Prepared, run: RunFolder, on_experiment: Callable[[str], None]
) -> Callable[[Ledger, Executor, Stopping], str]:
    """The search as a function with the arguments of `secateur.search.loop.search`. on_experiment: told the web UI's address.

    Raises DefinitionError for a remote host that cannot be used; the function raises what `search_by_nni` raises.
    """
    settings = prepared.definition.search
    nni = settings.nni or NniDefinition()
    code = run.folder("nni", "code")
    experiment = ExperimentSettings(
        tuner=settings.sampler.removeprefix("nni_"),
        trials=None,
        folder=run.folder("nni"),
        assessor=nni.assessor,
        concurrency=settings.workers,
        seed=settings.seed,
        port=nni.port,
        remote=_machine(settings, Path(run.project)),
    )
    where = str(code.absolute()) if nni.remote is None else "."
    arrangement = Arrangement(experiment, ["-m", "secateur.pipelines.nni_trial", where], code, on_experiment)

    def searched(ledger: Ledger, executor: Executor, stopping: Stopping) -> str:
        started = time.monotonic()
        # The tuner's turn is last: where it has come, the phases are done.
        if not any(trial.arm == "sampler" for trial in ledger.trials):
            ended = search(ledger, executor, stopping, phases_only=True)
            if ended != PHASES_DONE:
                return ended
        if stopping.seconds is not None:
            stopping = replace(stopping, seconds=stopping.seconds - (time.monotonic() - started))
        _lay_out(run, code, run.project if nni.remote is None else nni.remote.project)
        return search_by_nni(ledger, arrangement, stopping)

    return searched


def _machine(settings: SearchDefinition, root: Path) -> RemoteMachine | None:
    """The remote host, its key proven known before any long work."""
    remote = settings.nni.remote if settings.nni is not None else None
    if remote is None:
        return None
    files = {name: root / Path(getattr(remote, name)).expanduser() for name in ("key_file", "known_hosts")}
    for name, file in files.items():
        if not file.is_file():
            raise DefinitionError(f"{remote.where(name)}: there is no file {file}.")
    machine = RemoteMachine(remote.host, remote.user, remote.python, **files, port=remote.port)
    try:
        machine.key_hashes()
    except DefinitionError as error:
        raise DefinitionError(f"{remote.where('host')}: {error}") from error
    return machine


def _lay_out(run: RunFolder, folder: Path, project: str) -> None:
    """A small run folder for the trials. project: the project's folder where they run."""
    for name in NEEDED:
        write(folder / name, (run.path / name).read_bytes())
    for file in (run.predictor, run.grams, run.sparse):
        if file.is_file():
            write(folder / file.relative_to(run.path), file.read_bytes())
    facts = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    write(folder / "run.json", json.dumps({**facts, "project": project}))
