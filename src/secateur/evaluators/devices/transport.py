"""How a device is reached: put a file, run a command and read what it says, get a file, close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: exit status, negative for a signal, None where nobody can tell. errors: the last of its stderr."""

    code: int | None
    errors: str


class Stream(Protocol):
    """A running command, line by line."""

    def send(self, line: str) -> None:
        """Write one line to its standard input. A command that has gone is noticed by `receive`; a lost link raises DeviceLost."""
        ...

    def receive(self, seconds: float) -> str | None:
        """The next line of its standard output without the line's end; None once it has ended.

        Raises TimeoutError where nothing comes within `seconds`, DeviceLost where the link is gone.
        """
        ...

    def end(self) -> Ended:
        """Close its standard input, give it two seconds to go, then kill it; nothing of it stays behind. May be called twice."""
        ...


class Transport(Protocol):
    """One device over one kind of connection, opened at the first use and kept.

    Every method raises DeviceLost where the device cannot be reached, is cut off or is full, and DeviceRefused where keys, login
    or permissions are wrong: both name the device and say what to do. Not thread-safe.
    """

    name: str
    """As a person wrote it: `pi@raspberrypi.local`."""

    def put(self, content: bytes, path: str) -> None:
        """Write a file on the device, whole or not at all (a `.part` beside it, then a rename); missing folders are made.

        path: absolute, or relative to the login's home folder.
        """
        ...

    def exec_stream(self, command: Sequence[str], seconds: float) -> Stream:
        """Start a command there (no shell sees its words). After `seconds` the device itself kills it, link or no link."""
        ...

    def get(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError where there is none."""
        ...

    def close(self) -> None:
        """End the connection and what still runs over it. The next call opens it again."""
        ...
