"""What tests of devices share: whether something still runs, and an adb that knows one device, this host."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from waiting import until

STUB = """#!{python}
import os, shutil, sys
words = sys.argv[1:]
os.chdir({root!r})
if words[0] == "-s":
    serial, words = words[1], words[2:]
    if serial != "R58":
        sys.exit(f"error: device '{{serial}}' not found")
if words[0] == "push":
    shutil.copy(words[1], words[2])
elif words[0] == "pull":
    if not os.path.exists(words[1]):
        sys.exit(f"adb: error: failed to stat remote object '{{words[1]}}': No such file or directory")
    shutil.copy(words[1], words[2])
elif words[0] == "shell" and len(words) == 2:
    os.execvp("sh", ["sh", "-c", words[1]])
else:
    sys.exit(f"adb: unknown command {{words[0]}}")
"""
"""Push, pull and shell as adb has them, on a folder of this host."""


def running(marker: str) -> list[psutil.Process]:
    """Processes with this in one of their words."""
    return [p for p in psutil.process_iter(["cmdline"]) if any(marker in w for w in p.info["cmdline"] or [])]


def gone(marker: str) -> None:
    until(lambda: not running(marker), f"the end of {marker}")


def adb_stub(folder: Path) -> str:
    """An adb command whose device keeps its files in `folder`/phone."""
    (folder / "phone").mkdir()
    return script(folder / "adb", STUB.format(python=sys.executable, root=str(folder / "phone")))


def script(file: Path, text: str) -> str:
    file.write_text(text)
    file.chmod(0o755)
    return str(file)
