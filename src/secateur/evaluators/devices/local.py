"""This host, reached as any other device is: files are copied, commands run in a session of their own."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from secateur.errors import DeviceLost, StateError
from secateur.evaluators.devices.transport import Ended
from secateur.files import write
from secateur.torch_environment import environment_as_given

GRACE = 2.0
"""Seconds that a command gets to go by itself."""
KEPT = 2048
"""Bytes of its standard error that are kept."""


class LocalTransport:
    """folder: what relative paths are relative to."""

    def __init__(self, folder: Path, name: str = "local") -> None:
        """Nothing is opened."""
        self.name, self._folder = name, folder
        self._running: list[ProcessStream] = []

    def put(self, content: bytes, path: str) -> None:
        """Write a file there, whole or not at all."""
        try:
            write(self._folder / path, content)
        except StateError as error:
            raise DeviceLost(f"{self.name}: {error}") from error

    def exec_stream(self, command: Sequence[str], seconds: float) -> ProcessStream:
        """Start a command; coreutils' `timeout` kills it after `seconds`, as on any other device."""
        timeout = shutil.which("timeout")
        limited = [timeout, "-k", "2", str(seconds), *command] if timeout is not None else list(command)
        self._running = [stream for stream in self._running if stream.alive]
        stream = ProcessStream(limited, self._folder)
        self._running.append(stream)
        return stream

    def get(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError where there is none."""
        return (self._folder / path).read_bytes()

    def close(self) -> None:
        """End the connection and what still runs over it."""
        for stream in self._running:
            stream.end()
        self._running = []


class ProcessStream:
    """A process on this host, in a session of its own: whatever it has started ends with it."""

    def __init__(self, command: Sequence[str], folder: Path | None = None) -> None:
        """Starts it. folder: where it runs."""
        self._process = subprocess.Popen(  # noqa: S603 # our own commands; no shell sees them
            list(command),
            cwd=folder,
            env=environment_as_given(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors = b""
        self._ended: Ended | None = None
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in (self._read, self._listen)]
        for reader in self._readers:
            reader.start()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None  # noqa: S101 # it was opened with a pipe
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has gone: `receive` will tell
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float) -> str | None:
        """Its next line; None once it has ended. Raises TimeoutError and DeviceLost."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no line within {seconds:g} s") from None
        if line is None:
            self._lines.put(None)  # whoever asks again hears the same
        return line

    def end(self) -> Ended:
        """Close its input, give it two seconds, then kill it. May be called twice."""
        if self._ended is None:
            self._ended = self._end()
        return self._ended

    def _end(self) -> Ended:
        process = self._process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101, PT018
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        for reader in self._readers:
            reader.join()
        process.stdout.close()
        process.stderr.close()
        return Ended(code, self._errors.decode(errors="replace"))

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 # it was opened with a pipe
        for line in self._process.stdout:
            self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def _listen(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 # it was opened with a pipe
        while data := os.read(self._process.stderr.fileno(), 4096):
            self._errors = (self._errors + data)[-KEPT:]
