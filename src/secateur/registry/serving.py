"""The version that serves: fetched from the registry, so that a new one can be compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secateur.errors import ModelError
from secateur.files import sha256_of
from secateur.registry.embedded import DATABASE
from secateur.registry.history import registry
from secateur.registry.package import Target

ONNX = "model.onnx"
SELECTION = "secateur.selection_digest"
"""Tag of a version: of the data that its figures come from."""


def sha256_tag(name: str) -> str:
    """The tag of a version that holds the sha256 of one of its files."""
    return "secateur.onnx_sha256" if name == ONNX else f"secateur.sha256.{name}"


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
        named = f"@{alias}, version {version.number} of '{target.name}'"
        files, name = server.files_of(version, folder / "version"), f"model.{suffix}"
        converted = server.file_of_run(version.run, name, folder / "run") if suffix != "onnx" else None
    onnx = files / ONNX if files is not None else None
    if onnx is None or not onnx.is_file() or (suffix != "onnx" and converted is None):
        raise ModelError(f"{named} has no file '{ONNX if onnx is None or not onnx.is_file() else name}'.")
    if version.tags.get(sha256_tag(ONNX), sha256_of(onnx)) != sha256_of(onnx):
        raise ModelError(f"The ONNX file of {named} is not the one that was registered: its sha256 is another.")
    return Serving(version.number, onnx.read_bytes(), converted.read_bytes() if converted else None)
