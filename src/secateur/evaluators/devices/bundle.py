"""The agent as one file: a zip that Python runs, the same bytes for the same sources."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib.resources import files

_MAIN = "from secateur_agent.serve import main\nmain()\n"


@dataclass(frozen=True)
class Bundle:
    """content: of the .pyz file. sha256: hex digest."""

    content: bytes
    sha256: str


@functools.cache
def bundle() -> Bundle:
    """`secateur.agent`, packed as the package `secateur_agent` with a `__main__`."""
    root = files("secateur") / "agent"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py"), _MAIN)
        for folder, prefix in ((root, "secateur_agent/"), (root / "runtimes", "secateur_agent/runtimes/")):
            for source in sorted(folder.iterdir(), key=lambda entry: entry.name):
                if source.name.endswith(".py"):
                    archive.writestr(_entry(prefix + source.name), source.read_bytes())
    content = buffer.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())


def _entry(name: str) -> zipfile.ZipInfo:
    """A file of the archive, without a date."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
