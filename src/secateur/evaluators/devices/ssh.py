"""A board over ssh: strict host keys, a key or the ssh-agent, time-outs on everything, and nothing left running on the board."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import threading
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from secateur.errors import DeviceLost, DeviceRefused, first_line
from secateur.evaluators.devices.transport import Ended

try:
    import asyncssh
except ImportError as missing:
    raise DeviceRefused(
        "Devices over ssh need asyncssh, which is not installed: pip install 'secateur[ssh]'."
    ) from missing

T = TypeVar("T")
GRACE = 2.0
"""Seconds that a command gets to go by itself."""
KEPT = 2048
"""Characters of its standard error that are kept."""
KEEPALIVES = 3
"""Unanswered signs of life after which a link counts as cut."""
SLOWEST = 100_000.0
"""Bytes a second below which a link is too slow to push a model."""


@dataclass(frozen=True)
class Login:
    """How a host is reached. host: `user@name`. key_file: None for the keys of the ssh-agent. Seconds throughout."""

    host: str
    port: int
    key_file: Path | None
    known_hosts: Path
    connect_seconds: float = 10.0
    keepalive_seconds: float = 2.0


class _Link:
    """One connection, opened at the first use and again after it was lost, and the thread on which it lives.

    connections: how often it was opened.
    """

    def __init__(self, login: Login) -> None:
        """Nothing is opened."""
        self.name, self._login, self.connections = f"{login.host}:{login.port}", login, 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and not self._connection.is_closed()

    def do(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Something on the connection, with every foreign error in our words."""
        try:
            return self.wait_for(work, seconds)
        except (DeviceLost, FileNotFoundError):
            raise
        except TimeoutError as error:
            raise DeviceLost(
                f"{self.name} did not answer within {seconds:g} s. Is it switched on and connected?"
            ) from error
        except asyncssh.HostKeyNotVerifiable as error:
            raise DeviceRefused(
                f"{self.name}: its host key is not the one in {self._login.known_hosts} ({first_line(error)}). If you trust it, "
                "compare its fingerprint on the device (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and log in once with ssh."
            ) from error
        except asyncssh.PermissionDenied as error:
            raise DeviceRefused(
                f"{self.name} refuses the login with {self._login.key_file or 'the keys of the ssh-agent'}. Add the public key to "
                "~/.ssh/authorized_keys there (ssh-copy-id)."
            ) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise DeviceRefused(
                f"{self._login.key_file} cannot be used as a key ({first_line(error)}). One with a passphrase goes into the "
                "ssh-agent: leave `key_file` out."
            ) from error
        except (OSError, asyncssh.Error) as error:
            self._connection = None
            raise DeviceLost(f"{self.name} cannot be reached: {first_line(error)}.") from error

    def wait_for(self, awaitable: Awaitable[T], seconds: float) -> T:
        """Run something on the loop's thread. Raises TimeoutError."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()

        async def limited() -> T:
            return await asyncio.wait_for(awaitable, seconds)

        return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()

    async def connected(self) -> asyncssh.SSHClientConnection:
        """The connection, opened where there is none."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        login = self._login
        user, _, host = login.host.rpartition("@")
        for file, what in ((login.key_file, "key"), (login.known_hosts, "known_hosts file")):
            if file is not None and not file.is_file():
                raise DeviceRefused(f"{self.name}: the {what} {file} does not exist.")
        self._connection = await asyncio.wait_for(
            asyncssh.connect(
                host,
                login.port,
                username=user,
                client_keys=[str(login.key_file)] if login.key_file is not None else None,
                agent_path=None if login.key_file is not None else os.environ.get("SSH_AUTH_SOCK"),
                known_hosts=str(login.known_hosts),
                config=None,
                password_auth=False,
                kbdint_auth=False,
                keepalive_interval=login.keepalive_seconds,
                keepalive_count_max=KEEPALIVES,
            ),
            login.connect_seconds,
        )
        self.connections += 1
        return self._connection

    def close(self) -> None:
        """End the connection and the thread."""
        if self._connection is not None:
            self._connection.abort()
            with contextlib.suppress(Exception):  # it is given up, whatever state it is in
                self.wait_for(self._connection.wait_closed(), GRACE)
            self._connection = None
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None


class SshTransport:
    """One board. See `Transport`."""

    def __init__(self, login: Login) -> None:
        """Nothing is opened."""
        self._link, self._seconds = _Link(login), login.connect_seconds + 10
        self.name = self._link.name

    @property
    def connections(self) -> int:
        """How often a connection was opened."""
        return self._link.connections

    def put(self, content: bytes, path: str) -> None:
        """Write a file there, whole or not at all."""
        self._link.do(self._put(content, path), self._seconds + len(content) / SLOWEST)

    def exec_stream(self, command: Sequence[str], seconds: float) -> SshStream:
        """Start a command there; after `seconds` the device itself kills it."""
        limited = shlex.join(["timeout", "-k", "2", f"{seconds:g}", *command])
        # The shell's process becomes the command's: what it prints first is whom to kill.
        return SshStream(self._link, self._link.do(self._start(f"echo $$; exec {limited}"), self._seconds))

    def get(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError where there is none."""
        return self._link.do(self._get(path), self._seconds + 50)

    def close(self) -> None:
        """End the connection and what still runs over it."""
        self._link.close()

    async def _start(self, command: str) -> asyncssh.SSHClientProcess[str]:
        return await (await self._link.connected()).create_process(command)

    async def _put(self, content: bytes, path: str) -> None:
        unfinished = f"{path}.part"
        try:
            async with (await self._link.connected()).start_sftp_client() as sftp:
                await sftp.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
                async with sftp.open(unfinished, "wb") as file:
                    await file.write(content)
                if await sftp.getsize(unfinished) != len(content):
                    raise DeviceLost(f"{self.name}: {path} did not arrive whole.")
                await sftp.posix_rename(unfinished, path)
        except asyncssh.SFTPFailure as error:  # which is all that a full disk says
            free = await self._free(path)
            raise DeviceLost(
                f"{self.name} does not take {path} ({len(content):,} bytes; {free}). Free some space there."
            ) from error
        except asyncssh.SFTPPermissionDenied as error:
            raise DeviceRefused(
                f"{self.name}: {path} may not be written. Name another `folder` in its definition."
            ) from error

    async def _free(self, path: str) -> str:
        folder = shlex.quote(str(PurePosixPath(path).parent))
        listing = await (await self._link.connected()).run(f"df -Pk {folder} | tail -n 1")
        words = str(listing.stdout).split()
        return f"{words[3]} kB are free at {words[-1]}" if len(words) >= 6 else "free space unknown"  # df's columns

    async def _get(self, path: str) -> bytes:
        try:
            async with (await self._link.connected()).start_sftp_client() as sftp, sftp.open(path, "rb") as file:
                content: bytes = await file.read()
                return content
        except asyncssh.SFTPNoSuchFile as error:
            raise FileNotFoundError(path) from error


class SshStream:
    """A command on the board; its lines in and out."""

    def __init__(self, link: _Link, process: asyncssh.SSHClientProcess[str]) -> None:
        """Begins to read what it says."""
        self._link, self._process = link, process
        self._pid: int | None = None
        self._ended: Ended | None = None

    def send(self, line: str) -> None:
        """Write a line to its standard input."""

        async def write() -> None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line + "\n")

        self._link.do(write(), GRACE)

    def receive(self, seconds: float) -> str | None:
        """Its next line; None once it has ended. Raises TimeoutError and DeviceLost."""
        try:
            if self._pid is None:
                first = self._line(seconds)
                if first is None:
                    return None
                self._pid = int(first)
            return self._line(seconds)
        except TimeoutError:
            raise TimeoutError(f"no line within {seconds:g} s") from None

    def _line(self, seconds: float) -> str | None:
        try:
            line = self._link.wait_for(self._process.stdout.readline(), seconds)
        except (OSError, asyncssh.Error) as error:
            if isinstance(error, TimeoutError):
                raise
            raise DeviceLost(f"{self._link.name}: the link was cut: {first_line(error)}.") from error
        runs = self._process.exit_status is None and self._process.exit_signal is None
        if not line and runs and not self._link.up:
            raise DeviceLost(f"{self._link.name}: the link was cut.")
        return line.rstrip("\r\n") if line else None

    def end(self) -> Ended:
        """Close its input, give it two seconds, then kill it. May be called twice."""
        if self._ended is None:
            with contextlib.suppress(DeviceLost, TimeoutError):
                self._link.do(self._close(), 3 * GRACE)
            self._ended = self._ended or Ended(None, "")
        return self._ended

    async def _close(self) -> None:
        process = self._process
        with contextlib.suppress(BrokenPipeError, OSError):
            process.stdin.write_eof()
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(process.wait_closed(), GRACE)
        alive = process.exit_status is None and process.exit_signal is None and self._pid is not None
        if alive and self._link.up:  # else its own deadline ends it
            # `timeout` is the leader of a group of its own, and hands TERM on; KILL reaches the rest of the group.
            await (await self._link.connected()).run(
                f"kill -TERM {self._pid}; sleep 0.2; kill -KILL -- -{self._pid} {self._pid} 2>/dev/null"
            )
            process.close()
        errors = ""
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            errors = (await asyncio.wait_for(process.stderr.read(), 0.5))[-KEPT:]
        code = process.exit_status
        self._ended = Ended(code if code is None or code >= 0 else None, errors)
