"""Android devices behind the Android Debug Bridge: the `adb` command of this host does the talking."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from secateur.errors import DeviceLost, DeviceRefused
from secateur.evaluators.devices.local import ProcessStream
from secateur.evaluators.devices.transport import Ended

ANSWER = 20.0
"""Seconds in which a device answers a short command; a push gets more by its size."""
SLOWEST = 500_000.0
"""Bytes a second below which a cable is none."""


class _Bridge:
    """The `adb` command of this host, for one device."""

    def __init__(self, serial: str | None, adb: str) -> None:
        self.name, self._serial, self._adb = serial or "the Android device", serial, adb

    def words(self, words: Sequence[str]) -> list[str]:
        """A whole command line. Raises DeviceRefused where adb is not installed."""
        adb = shutil.which(self._adb)
        if adb is None:
            raise DeviceRefused(
                f"There is no '{self._adb}' on this host: install adb, or name it by `adb:` in the device's definition."
            )
        return [adb, *(["-s", self._serial] if self._serial else []), *words]

    def run(self, words: Sequence[str], seconds: float) -> str:
        """Its output. Raises what `trouble` says of a failure."""
        try:
            done = subprocess.run(  # noqa: S603 # adb with our own words
                self.words(words), capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceLost(f"{self.name} did not answer within {seconds:g} s. Is the cable in?") from error
        if done.returncode != 0:
            raise self.trouble(done.stderr + done.stdout)
        return done.stdout

    def trouble(self, output: str) -> DeviceLost:
        """What adb's complaint means, and what to do."""
        lines = [line for line in output.strip().splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "adb said nothing"
        if "unauthorized" in output:
            return DeviceRefused(f"{self.name} has not allowed this host: unlock it and confirm the debugging prompt.")
        if "more than one device" in output:
            return DeviceRefused(
                "Several Android devices are connected: name those to use by `serials` (`adb devices` lists them)."
            )
        if "offline" in output:
            return DeviceLost(
                f"{self.name} is offline: unplug it and plug it in again, or restart adb (`adb kill-server`)."
            )
        if re.search(r"no devices|device ('.*' )?not found", output):
            return DeviceLost(f"{self.name} is not connected ({last}). `adb devices` lists what is.")
        if "No space left" in output:
            return DeviceLost(f"{self.name} is full ({last}). Free some space there.")
        if "Permission denied" in output:
            return DeviceRefused(
                f"{self.name}: {last}. Name a `folder` that the shell user may write, e.g. below /data/local/tmp."
            )
        return DeviceLost(f"{self.name}: {last}")


class AdbTransport:
    """serial: as `adb devices` lists it, None where there is only one. adb: the command here."""

    def __init__(self, serial: str | None, adb: str = "adb") -> None:
        """Nothing is opened: adb keeps a server of its own."""
        self._bridge = _Bridge(serial, adb)
        self.name = self._bridge.name
        self._running: list[AdbStream] = []

    def put(self, content: bytes, path: str) -> None:
        """Write a file there, whole or not at all."""
        self._shell(["mkdir", "-p", str(PurePosixPath(path).parent)])
        unfinished = f"{path}.part"
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self._bridge.run(["push", file.name, unfinished], ANSWER + len(content) / SLOWEST)
        # What a full disk has cut off is told by its size, whatever this version of adb says of it.
        size = self._shell(["stat", "-c", "%s", unfinished]).strip()
        if size != str(len(content)):
            raise DeviceLost(f"{self.name}: {path} did not arrive whole ({size} of {len(content)} bytes).")
        self._shell(["mv", unfinished, path])

    def exec_stream(self, command: Sequence[str], seconds: float) -> AdbStream:
        """Start a command there; after `seconds` the device itself kills it."""
        limited = shlex.join(["timeout", "-k", "2", f"{seconds:g}", *command])
        stream = AdbStream(self._bridge, self._bridge.words(["shell", f"echo $$; exec {limited}"]))
        self._running.append(stream)
        return stream

    def get(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder) / "file"
            try:
                self._bridge.run(["pull", path, str(here)], 3 * ANSWER)
            except DeviceLost as error:
                if "No such file" in str(error) or "does not exist" in str(error):
                    raise FileNotFoundError(path) from error
                raise
            return here.read_bytes()

    def close(self) -> None:
        """End the connection and what still runs over it. adb's own server goes on: it may serve others."""
        for stream in self._running:
            stream.end()
        self._running = []

    def _shell(self, command: Sequence[str]) -> str:
        return self._bridge.run(["shell", shlex.join(command)], ANSWER)


class AdbStream:
    """A command on the device; its lines in and out."""

    def __init__(self, bridge: _Bridge, words: Sequence[str]) -> None:
        """Starts it."""
        self._bridge, self._process = bridge, ProcessStream(words)
        self._pid: int | None = None
        self._ended: Ended | None = None

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        self._process.send(line)

    def receive(self, seconds: float) -> str | None:
        """Its next line; None once it has ended. Raises TimeoutError and DeviceLost."""
        if self._pid is None:
            first = self._process.receive(seconds)
            if first is None or not first.strip().isdigit():
                raise self._bridge.trouble(f"{self._process.end().errors}\n{first or ''}")
            self._pid = int(first)
        return self._process.receive(seconds)

    def end(self) -> Ended:
        """Close its input, give it two seconds, then kill it. May be called twice."""
        if self._ended is None:
            alive = self._process.alive
            self._ended = self._process.end()
            if alive and self._ended.code is not None and self._ended.code < 0 and self._pid is not None:
                # adb was killed here; over there the command may still run, and `timeout` leads a group of its own.
                kill = f"kill -TERM {self._pid}; sleep 0.2; kill -KILL -{self._pid} {self._pid} 2>/dev/null; true"
                self._bridge.run(["shell", kill], ANSWER)
        return self._ended
