"""What is said of a crash of native code: one line; the stack goes into a file."""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
from datetime import datetime
from pathlib import Path

from secateur.cli.notes import Notes

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)


def crash_report(signal_name: str, notes: Notes, stack: str, going_on: str | None) -> str:
    """One line. stack: as `faulthandler` writes it. going_on: which retry follows, None where the command ends here."""
    if notes.code is not None:
        return f"secateur: native code crashed ({signal_name}) after everything was done; the outcome stands."
    frame = frame_of(stack)
    where = f", in {frame}" if frame else ""
    file = _keep(stack, notes.folder)
    details = f" The stack is in {file}." if file else ""
    if going_on is not None:
        what_next = f" Going on with the run from what was finished ({going_on})."
    elif notes.unfinished and notes.folder is not None:
        what_next = f" Whatever was finished is kept; go on with: secateur resume {notes.folder.name}"
    else:
        what_next = ""
    report = f"secateur: native code crashed ({signal_name}){notes.while_doing}{where}.{details}{what_next}"
    _log(report, notes.folder)
    return report


def frame_of(stack: str) -> str | None:
    """Where Python was, as `file:line (function)`: the innermost frame of a person's own code, else the innermost one."""
    _, _, current = stack.partition("Current thread")
    frames = [*_FRAME.finditer(current.partition("\n\n")[0])]
    if not frames:
        return None
    libraries = (
        *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
        str(Path(__file__).parents[1]),
    )
    own = [f for f in frames if not f["file"].startswith((*libraries, "<"))]
    chosen = (own or frames)[0]
    return f"{chosen['file']}:{chosen['line']} ({chosen['function']})"


def _keep(stack: str, folder: Path | None) -> Path | None:
    """Write the stack into the run's folder, or a private one where there is no run. None where no disk takes it."""
    from secateur.errors import SecateurError
    from secateur.files import private_folder, write

    with contextlib.suppress(OSError, SecateurError):
        file = (folder or private_folder("logs")) / f"crash-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
        write(file, stack)
        return file
    return None


def _log(line: str, folder: Path | None) -> None:
    """A line of the run's log, in its form."""
    if folder is not None:
        with contextlib.suppress(OSError), (folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now():%Y-%m-%d %H:%M:%S},000 CRITICAL {line}\n")
