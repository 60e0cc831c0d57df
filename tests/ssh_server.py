"""An OpenSSH server of a test's own on loopback: its own host key, our own user key, a free high port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from waiting import until


@dataclass(frozen=True)
class Server:
    """port: on 127.0.0.1, for root. folder: holds the keys `host` and `user`, `known_hosts`, and the server's `log`."""

    port: int
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


def make_key(file: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return file


@contextlib.contextmanager
def ssh_server(folder: Path, **environment: str) -> Iterator[Server]:
    """Started, and stopped afterwards. environment: of whoever logs in."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    if sshd is None or os.geteuid() != 0:
        pytest.skip("needs sshd, and root to start it")
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        make_key(folder / name)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    variables = " ".join(f"{name}={value}" for name, value in {"HOME": str(folder), **environment}.items())
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized_keys", "StrictModes": "no", "UsePAM": "no",
        "PasswordAuthentication": "no", "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp", "SetEnv": variables,
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "config"], stderr=log)
    try:
        until(lambda: "listening" in (folder / "log").read_text(), "the ssh server's start", alive=server)
        yield Server(port, folder)
    finally:
        server.terminate()
        server.wait()
