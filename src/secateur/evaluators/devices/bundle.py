"""The agent as one file: a zip that Python runs, the same bytes for the same sources; and what starts it on a device.

The file lies at a place that is easy to guess, so what lies there is checked before it runs, by a program that does not lie
there: it travels with the command.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from secateur.errors import PluginError
from secateur.evaluators.runtimes import RUNTIMES
from secateur.plugins import distribution_of

STARTER = """\
import sys
sys.path = [entry for entry in sys.path if entry]
import hashlib, json, os, runpy, stat
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
agent. In a folder that only this user writes, the file cannot be changed between the check and the run. With `-c` Python would
import from the working directory first: a project's own json.py must not run here.
"""
_MAIN = "from secateur_agent.serve import main\nmain()\n"
_SEEN = {"secateur.agent.runtimes", "secateur.agent.runtimes.base"}
"""What a plug-in may import of this package, on the host and on a device alike."""
_PLUGGED = """\
import sys, types
import secateur_agent, secateur_agent.runtimes, secateur_agent.runtimes.base
sys.modules["secateur"] = types.ModuleType("secateur")
for name in ("", ".runtimes", ".runtimes.base"):
    sys.modules["secateur.agent" + name] = sys.modules["secateur_agent" + name]
from secateur_agent import plugged
secateur_agent.runtimes.RUNTIMES[{name!r}] = plugged.{attribute}
"""
"""There the package has another name; a plug-in's file knows it by the one that it has here."""


@dataclass(frozen=True)
class Bundle:
    """content: of the .pyz file. sha256: hex digest."""

    content: bytes
    sha256: str


@functools.cache
def bundle(runtime: str = "") -> Bundle:
    """`secateur.agent`, packed as the package `secateur_agent` with a `__main__`; with the one file of a runtime that is a plug-in.

    Raises PluginError where that is more than one file.
    """
    plugin = RUNTIMES.plugin(runtime)
    root = files("secateur") / "agent"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if plugin is None:
            archive.writestr(_entry("__main__.py"), _MAIN)
        else:
            archive.writestr(_entry("__main__.py"), _PLUGGED.format(name=runtime, attribute=plugin.attr) + _MAIN)
            archive.writestr(_entry("secateur_agent/plugged.py"), _one_file(plugin))
        for folder, prefix in ((root, "secateur_agent/"), (root / "runtimes", "secateur_agent/runtimes/")):
            for source in sorted(folder.iterdir(), key=lambda entry: entry.name):
                if source.name.endswith(".py"):
                    archive.writestr(_entry(prefix + source.name), source.read_bytes())
    content = buffer.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())


def _one_file(plugin: EntryPoint) -> bytes:
    """The source of a runtime's module. Raises PluginError where it needs more than a device has."""
    specification = find_spec(plugin.module)
    origin = specification.origin if specification else None
    if origin is None or not origin.endswith(".py"):
        raise _unfit(plugin, "is no Python file")
    source = Path(origin).read_bytes()
    for statement in ast.walk(ast.parse(source)):
        names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
        if isinstance(statement, ast.ImportFrom):
            names = [statement.module or ""]
            if statement.level:
                raise _unfit(plugin, "imports a part of its own package")
        for name in names:
            if name.partition(".")[0] == plugin.module.partition(".")[0]:
                raise _unfit(plugin, f"imports {name}, a part of its own package")
            if name.partition(".")[0] == "secateur" and name not in _SEEN:
                raise _unfit(plugin, f"imports {name}; a device has {' and '.join(sorted(_SEEN))} only")
    return source


def _unfit(plugin: EntryPoint, reason: str) -> PluginError:
    return PluginError(
        f"The runtime '{plugin.name}' of {distribution_of(plugin)} cannot travel to a device: {plugin.module} {reason}. A "
        "runtime is one file, and imports its library inside its functions."
    )


def _entry(name: str) -> zipfile.ZipInfo:
    """A file of the archive, without a date."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
