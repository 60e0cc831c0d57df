"""The version that serves: fetched from the registry, so that a new one can be compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import ModelError
from secateur.files import sha256_of
from secateur.registry.embedded import DATABASE
from secateur.registry.history import registry
from secateur.registry.package import Target
from secateur.registry.tracking import Registered, Tracking

ONNX = "model.onnx"
SELECTION = "secateur.selection_digest"
"""Tag of a version: of the data that its figures come from."""


def sha256_tag(name: str) -> str:
    """The tag of a version that holds the sha256 of one of its files. Earlier versions of secateur have set none."""
    return f"secateur.sha256.{name}"


def files_of(folder: Path, compressed: Path) -> dict[str, Path]:
    """The files that are registered with a finalist, by the name that they have there. folder, compressed: its own."""
    modules = {f"compressed/{file.name}": file for file in sorted(compressed.glob("*"))}
    return modules | {file.name: file for file in sorted(folder.glob("model.*"))}


@dataclass(frozen=True)
class Serving:
    """A registered version. number: its number. onnx: its file. converted: the same in a device's format, None for ONNX."""

    number: str
    onnx: bytes
    converted: bytes | None

    @property
    def file(self) -> bytes:
        """In the device's format."""
        return self.onnx if self.converted is None else self.converted


@dataclass(frozen=True)
class Fetched:
    """A version's files on this disk, by the names under which they were registered. altered: those whose sha256 is another."""

    files: Mapping[str, Path]
    altered: tuple[str, ...]


def fetched(server: Tracking, version: Registered, folder: Path, suffix: str) -> Fetched:
    """Fetch a version's ONNX file, the same in a device's format, and its torch module, as far as they are there.

    folder: where they go. suffix: of the device's format.
    """
    found = dict[str, Path]()
    if (files := server.files_of(version, folder / "version")) is not None and (files / ONNX).is_file():
        found[ONNX] = files / ONNX
    for name in ([f"model.{suffix}"] if suffix != "onnx" else []) + ["compressed"]:
        if (file := server.file_of_run(version.run, name, folder / "run")) is not None:
            inside = sorted(file.iterdir()) if file.is_dir() else []
            found |= {f"{name}/{each.name}": each for each in inside} if inside else {name: file}
    hashes = {name: sha256_of(file) for name, file in found.items()}
    return Fetched(found, tuple(n for n, sha256 in hashes.items() if version.tags.get(sha256_tag(n), sha256) != sha256))


def serving(state: Path, target: Target, alias: str, folder: Path, suffix: str) -> Serving | None:
    """The version that has an alias, None where nobody has it. folder: where its files go. suffix: of the device's format.

    Raises RegistryUnreachable and StateError as `registry` does, ModelError where its files are not those that were registered.
    """
    if target.tracking_uri is None and not (state / DATABASE).is_file():
        return None
    with registry(state, target.tracking_uri) as server:
        version = server.version(target.name, f"@{alias}")
        if version is None:
            return None
        found, name = fetched(server, version, folder, suffix), f"model.{suffix}"
    named = f"@{alias}, version {version.number} of '{target.name}'"
    for wanted in (ONNX, name):
        if wanted not in found.files:
            raise ModelError(f"{named} has no file '{wanted}'.")
        if wanted in found.altered:
            raise ModelError(f"'{wanted}' of {named} is not the file that was registered: its sha256 is another.")
    converted = found.files[name].read_bytes() if name != ONNX else None
    return Serving(version.number, found.files[ONNX].read_bytes(), converted)
