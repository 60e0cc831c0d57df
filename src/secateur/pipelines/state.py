"""What a run leaves on disk: one folder per run below `mlruns/runs/`, written atomically, locked while in use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml import YAML

from secateur.definition import PipelineDefinition
from secateur.errors import DefinitionError, StateError, first_line, nearest
from secateur.files import disk_errors, write
from secateur.formatting import duration
from secateur.pipelines.environment import environment

STATE = "mlruns"
RUNS = "runs"
DATABASE = "studies.db"
"""Below it: every study of the project."""
LEAST_FREE = 200 * 2**20
"""Bytes that must be free before a run starts."""


@dataclass(frozen=True)
class RunFolder:
    """One run's place on disk.

    digest: of the definition; identity: of the model's weights and the device. The same command on the same model finds its
    unfinished run by both. environment: versions, git commit and machine when it was started.
    """

    path: Path
    run_id: str
    pipeline: str
    digest: str
    project: str
    started: str
    identity: str
    environment: dict[str, str]

    @property
    def state(self) -> Path:
        """The project's `mlruns/`."""
        return self.path.parents[1]

    @property
    def judged(self) -> bool:
        """Whether everything up to the gate is done; what may be left is to report and to register."""
        return (self.path / "record.json").is_file()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return (self.path / "done").is_file()

    @property
    def dense_onnx(self) -> Path:
        """The original network's file."""
        return self.path / "dense" / "model.onnx"

    @property
    def log(self) -> Path:
        """What the run has logged, over all of its restarts. Each worker has its own in `workers/`."""
        return self.path / "log.txt"

    @property
    def groups(self) -> Path:
        """The groups that were found and proven in the model."""
        return self.path / "groups.json"

    @property
    def grams(self) -> Path:
        """The Gram matrices of the dense network, while candidates are made."""
        return self.path / "grams.safetensors"

    @property
    def sparse(self) -> Path:
        """The tensors of the network that candidates are cut from, where the definition asks for sparse training."""
        return self.path / "sparse" / "model.safetensors"

    @property
    def predictor(self) -> Path:
        """The latency predictor, where the definition asks for one."""
        return self.path / "predictor.json"

    def folder(self, *names: str) -> Path:
        """A folder inside the run's, created where missing."""
        path = self.path.joinpath(*names)
        with disk_errors(path / "file"):
            path.mkdir(parents=True, exist_ok=True)
        return path


def open_state(project: Path) -> Path:
    """The project's `mlruns/`, proven writable and with room. Raises StateError."""
    state = project / STATE
    with disk_errors(state / "probe"):
        (state / "runs").mkdir(parents=True, exist_ok=True)
        probe = state / f".probe-{os.getpid()}"
        probe.write_bytes(b"secateur")
        probe.unlink()
    free = os.statvfs(state)
    if free.f_bavail * free.f_frsize < LEAST_FREE:
        raise StateError(
            f"{state} has {free.f_bavail * free.f_frsize // 2**20} MiB free; at least {LEAST_FREE // 2**20} MiB are needed."
        )
    return state


def digest_of(definition: PipelineDefinition) -> str:
    """Hash of a definition as written: another workload, budget or seed is another run."""
    return hashlib.sha256(json.dumps(definition.as_written(), sort_keys=True).encode()).hexdigest()[:12]


def open_run(
    project: Path,
    definition: PipelineDefinition,
    pipeline: str,
    identity: str,
    *,
    fresh: bool = False,
    origin: Mapping[str, str] | None = None,
) -> RunFolder:
    """The latest unfinished run of this definition on this model and device, or a new one.

    pipeline: as the user called it. origin: of the run, kept with the environment of a new one.
    """
    digest, state = digest_of(definition), project / STATE
    if not fresh:
        for run in reversed(runs(state)):
            if (run.digest, run.identity, run.done) == (digest, identity, False):
                return run
    started = datetime.now(UTC)
    base = f"{definition.name}-{started:%Y%m%d-%H%M%S}"
    run_id, number = base, 1
    while (state / "runs" / run_id).exists():
        number += 1
        run_id = f"{base}-{number}"
    path = state / "runs" / run_id
    run = RunFolder(
        path,
        run_id,
        pipeline,
        digest,
        str(project),
        started.isoformat(timespec="seconds"),
        identity,
        {**environment(project), **(origin or {})},
    )
    stream = io.StringIO()
    YAML().dump(definition.as_written(), stream)
    write(path / "definition.yaml", stream.getvalue())
    write(path / "run.json", json.dumps({k: v for k, v in asdict(run).items() if k != "path"}, indent=1))
    return run


def runs(state: Path) -> list[RunFolder]:
    """All runs, oldest first. One that cannot be read is left out with a warning: it must not hide the others."""
    files = sorted((state / "runs").glob("*/run.json"), key=lambda f: f.stat().st_mtime_ns)
    readable = []
    for file in files:
        try:
            readable.append(read_run(file.parent))
        except StateError as error:
            logging.getLogger("secateur").warning("%s", error)
    return readable


def read_run(folder: Path) -> RunFolder:
    """The run that lies in a folder. Raises StateError where its description cannot be read."""
    try:
        run = RunFolder(folder, **json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:  # no JSON, or other keys
        raise StateError(
            f"{folder / 'run.json'} was written by another version of secateur, or is damaged: {first_line(error)}. Move the "
            "folder away, or use that version."
        ) from error
    # A project may have been moved. A trial's folder of NNI's lies elsewhere and says where the project is.
    inside = folder.parent.name == RUNS and folder.parents[1].name == STATE
    return replace(run, project=str(folder.parents[2])) if inside else run


def find_run(project: Path, run_id: str | None, *, unfinished: bool = False) -> RunFolder:
    """A run by its id, or the latest (unfinished) one. Raises DefinitionError naming the nearest id."""
    known = runs(project / STATE)
    if not known:
        raise DefinitionError(
            f"There are no runs in {project / STATE / 'runs'}. Start one with: secateur run PIPELINE; --project names another "
            "folder."
        )
    if run_id is None:
        open_ones = [run for run in known if not run.done] if unfinished else known
        if not open_ones:
            raise DefinitionError(f"Every run is finished. See: secateur show {known[-1].run_id}")
        return open_ones[-1]
    for run in known:
        if run.run_id == run_id:
            return run
    ids = [run.run_id for run in known]
    raise DefinitionError(f"There is no run '{run_id}'.{nearest(run_id, ids)} Runs: {', '.join(ids[-8:])}.")


def locked(run: RunFolder) -> contextlib.AbstractContextManager[None]:
    """Hold the run: two drivers on one study would evaluate everything twice. Raises StateError where somebody has it."""
    return held(run.path / "lock", f"Run {run.run_id}")


@contextlib.contextmanager
def held(lock: Path, what: str) -> Iterator[None]:
    """Hold what a lock file stands for. The lock dies with the process; the file says whose it is. what: as people call it.

    Raises StateError naming the owner, where there is one. On a network file system its `flock` must work across hosts, as NFS 4
    has it.
    """
    with disk_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+", encoding="utf-8")
    with file:
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{what} is in use by {_owner(file.read())}.") from error
        if left := file.read():
            logging.getLogger("secateur").warning("%s was left by %s, which is gone: taken over.", what, _owner(left))
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _owner(written: str) -> str:
    """Who has written a lock file, for people; it may be read while it is being written."""
    try:
        owner = json.loads(written)
        age = duration(max(0.0, time.time() - owner["since"]))
        return f"process {owner['process']} on {owner['host']}, for {age}"
    except (ValueError, KeyError, TypeError):
        return "another process"


class Stopwatch:
    """Seconds per stage, added up over restarts; what a killed process had spent in its last stage is not in it.

    file: where they are kept; None to keep them nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file is not None and file.is_file() else {}

    def spent(self, name: str) -> float:
        """Seconds in a stage so far."""
        return self.seconds.get(name, 0.0)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage, or to a part of one (`stage.part`), also where it ends by an exception."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage or a part of one."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        if self.file is not None:
            write(self.file, json.dumps(self.seconds))
