"""What a retraining leaves on disk, beside the run that it starts: one folder for each run key.

mlruns/nights/NAME/lock         held while a retraining of this pipeline is going on
mlruns/nights/NAME/KEY/         weights.json: what the new weights are and where; weights/, where they were fetched or trained here
                                run.json: the run; result.json: how it ended, for good
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secateur.definition import RetrainDefinition
from secateur.errors import DefinitionError, WorkloadError
from secateur.files import write
from secateur.pipelines.state import STATE
from secateur.registry import registry
from secateur.registry.history import version_of
from secateur.workloads.calls import calling
from secateur.workloads.loading import load_attribute

NIGHTS = "nights"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FUNCTION = re.compile(r"[^/].*:[A-Za-z_]\w*")
_REGISTERED = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))")


def nights_folder(root: Path, name: str) -> Path:
    """Of all nights of a pipeline. root: the project's folder."""
    return root / STATE / NIGHTS / name


@dataclass(frozen=True)
class Night:
    """One retraining by its run key."""

    folder: Path

    @property
    def key(self) -> str:
        """The run key."""
        return self.folder.name

    def read(self, name: str) -> Any:
        """What one of its files holds, None where it is not there yet."""
        file = self.folder / f"{name}.json"
        return json.loads(file.read_bytes()) if file.is_file() else None

    def keep(self, name: str, content: Any) -> None:
        """Write one of its files. Raises StateError."""
        write(self.folder / f"{name}.json", json.dumps(content, indent=1))


def open_night(root: Path, name: str, key: str | None) -> Night:
    """The night of a run key; without one the latest that is not over, else a new one by the time of day (UTC).

    Raises DefinitionError where the key cannot be a folder's name.
    """
    folder = nights_folder(root, name)
    if key is not None:
        if not _KEY.fullmatch(key):
            raise DefinitionError(
                f"--run-key '{key[:40]}': a run key consists of letters, digits, '.', '_' and '-', begins with a letter or a "
                "digit, and has at most 100 of them. A date is a good one: 2026-03-01."
            )
        return Night(folder / key)
    begun = sorted(night for night in folder.glob("*") if night.is_dir() and not (night / "result.json").exists())
    return Night(
        max(begun, key=lambda f: f.stat().st_mtime_ns) if begun else folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    )


def weights_of(
    night: Night, definition: RetrainDefinition, root: Path, tracking_uri: str | None
) -> tuple[str | None, str]:
    """The path of the new weights, None where the workload knows it, and what they are, for people.

    Fetched or trained once for each night. Raises DefinitionError where there are no such weights, WorkloadError where the training
    fails, RegistryUnreachable where the registry cannot be asked.
    """
    kept = night.read("weights")
    if kept is None:
        path, source = _found(night.folder / "weights", definition, root, tracking_uri)
        kept = {"path": path and str(path), "source": source}
        night.keep("weights", kept)
    return kept["path"], kept["source"]


def _found(folder: Path, definition: RetrainDefinition, root: Path, uri: str | None) -> tuple[Path | None, str]:
    spec, where = definition.weights, definition.where("weights")
    if spec is None:
        return None, "the workload's own"
    if spec.startswith("models:/"):
        return _fetched(spec, folder, where, root / STATE, uri)
    if _FUNCTION.fullmatch(spec):
        return _trained(spec, folder, where, root)
    path = (root / spec).resolve()
    if not path.exists():
        raise DefinitionError(
            f"{where}: there are no weights {path}. Allowed are a path, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, and a "
            "training, `FILE.py:NAME`."
        )
    return path, str(path)


def _fetched(spec: str, folder: Path, where: str, state: Path, uri: str | None) -> tuple[Path, str]:
    """A registered model's files: its `.safetensors` file where it has just one, else their folder."""
    match = _REGISTERED.fullmatch(spec)
    if match is None:
        raise DefinitionError(f"{where}: '{spec}' is not `models:/NAME@ALIAS` or `models:/NAME/VERSION`.")
    name, number, alias = match.groups()
    shutil.rmtree(folder, ignore_errors=True)  # what was half fetched may be of another version
    with registry(state, uri) as server:
        version = version_of(server, name, number or f"@{alias}")
        files = server.files_of(version, folder)
    if files is None:
        raise DefinitionError(f"{where}: the files of '{name}' version {version.number} are gone.")
    tensors = sorted(files.rglob("*.safetensors"))
    return tensors[0] if len(tensors) == 1 else files, f"models:/{name}/{version.number}"


def _trained(spec: str, folder: Path, where: str, root: Path) -> tuple[Path, str]:
    """What a training of the user's returns. It may find in the folder what it has left there before it was interrupted."""
    train = load_attribute(spec, root, where, "training")
    folder.mkdir(parents=True, exist_ok=True)
    with calling(f"{where}: the training {spec}"):
        returned = train(folder)
    if not isinstance(returned, (str, Path)) or not (path := (folder / returned).resolve()).exists():
        raise WorkloadError(
            f"{where}: the training {spec} must return the path of the weights; it returned {returned!r:.100}."
        )
    return path, spec
