"""What the working process leaves for the one that watches over it, in shared memory: it outlives a crash of native code."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_COUNTS = struct.Struct("qq")
_TEXT = 4096
"""Bytes for each of the two texts: as long as a path may be."""
_RUNNING = -1


class Notes:
    """Made before the fork, written by the child, read by the parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _COUNTS.size + 2 * _TEXT)
        self._count(0, _RUNNING)

    def stage(self, what: str) -> None:
        """What is being done now, for people."""
        self._write(0, what)

    def run(self, folder: Path) -> None:
        """The run that is being worked on."""
        self._write(1, str(folder))

    def step(self) -> None:
        """Something is done that a restart need not do again."""
        self._count(self.steps + 1, _RUNNING)

    def ended(self, code: int) -> None:
        """The command is over; what is left is the interpreter's own end."""
        self._count(self.steps, code)

    @property
    def while_doing(self) -> str:
        """` while …`, nothing before the first stage."""
        return f" while {text}" if (text := self._read(0)) else ""

    @property
    def folder(self) -> Path | None:
        """The run's folder, None before there is one."""
        return Path(text) if (text := self._read(1)) else None

    @property
    def unfinished(self) -> bool:
        """Whether there is a run to go on with."""
        return self.folder is not None and not (self.folder / "done").is_file()

    @property
    def steps(self) -> int:
        """How much is done that a restart need not do again."""
        return int(_COUNTS.unpack_from(self._memory)[0])

    @property
    def code(self) -> int | None:
        """The exit code, None before the command is over."""
        code = int(_COUNTS.unpack_from(self._memory)[1])
        return None if code == _RUNNING else code

    def _count(self, steps: int, code: int) -> None:
        _COUNTS.pack_into(self._memory, 0, steps, code)

    def _write(self, place: int, text: str) -> None:
        start = _COUNTS.size + place * _TEXT
        self._memory[start : start + _TEXT] = text.encode()[: _TEXT - 1].ljust(_TEXT, b"\0")

    def _read(self, place: int) -> str:
        start = _COUNTS.size + place * _TEXT
        return self._memory[start : start + _TEXT].split(b"\0", 1)[0].decode(errors="replace")


OWN = [Notes()]
"""The last one is this process's."""


def notes() -> Notes:
    """Where this process notes what it does."""
    return OWN[-1]
