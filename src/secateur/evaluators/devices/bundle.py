"""The agent as one file: a zip that Python runs, the same bytes for the same sources; and what starts it on a device.

The file lies at a place that is easy to guess, so what lies there is checked before it runs, by a program that does not lie
there: it travels with the command.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib.resources import files

STARTER = """\
import hashlib, json, os, runpy, stat, sys
path, digest = sys.argv[1:3]
folder = os.path.dirname(path) or "."
def own(found):
    return found.st_uid == os.getuid() and not found.st_mode & 0o022
def trouble():
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.stat(folder)
    except FileExistsError:
        return "is no folder"
    except OSError as error:
        return "cannot be made: " + error.strerror
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if found.st_mode & 0o022:
        return "may be written by others (chmod go-w)"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return "may not be written"
def ours():
    try:
        found = os.lstat(path)
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and own(found) and hashlib.sha256(content).hexdigest() == digest
problem = trouble()
if problem:
    print(json.dumps({"unusable": os.path.abspath(folder) + " " + problem}))
elif not ours():
    print(json.dumps({"absent": path}))
else:
    sys.argv = [path, *sys.argv[3:]]
    runpy.run_path(path, run_name="__main__")
"""
"""A program for the device's Python: arguments are the agent's file, its sha256, and the agent's own.

It prints why the folder may not be used, or that the agent is not there (none, another one, somebody else's), or it runs the
agent. In a folder that only this user writes, the file cannot be changed between the check and the run.
"""
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
