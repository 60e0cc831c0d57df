"""A whole arm64 board without one: a Debian userland that qemu runs, with an ssh server, on a network cable of its own that can be
pulled out. Root on x86-64 Linux (a Debian with binfmt_misc) can have it; the first start builds its root from packages and keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from waiting import until

QEMU = "qemu-aarch64-static"
TOOLS = {
    "apt-get": "apt", "mmdebstrap": "mmdebstrap", QEMU: "qemu-user-static", "ip": "iproute2", "unshare": "util-linux",
    "nsenter": "util-linux", "ssh-keygen": "openssh-client",
}  # fmt: skip
"""command → Debian's package."""
PACKAGES = ("base-files", "coreutils", "dash", "libstdc++6", "openssh-server", "python3")
WHEELS = ("numpy", "onnxruntime")
"""In the same versions as here, without what they ask for: what else ONNX Runtime names, running a model does not need."""
WIRE = "eth0"


@dataclass(frozen=True)
class Board:
    """A running board. init: process id, on this host, of what holds its namespaces."""

    host: str
    port: int
    key_file: Path
    known_hosts: Path
    init: int

    def cut(self) -> None:
        """Pull the cable out: nothing passes, and no side hears that the other has gone."""
        self._wire("down")

    def restore(self) -> None:
        """Put the cable back. The connections of before go on where nobody has given them up."""
        self._wire("up")

    def processes(self, marker: str) -> list[psutil.Process]:
        """What runs on the board with `marker` in its command line, cable or no cable."""
        network = Path(f"/proc/{self.init}/ns/net").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                words = process.cmdline()  # empty for what has ended
                if any(marker in word for word in words) and Path(f"/proc/{process.pid}/ns/net").readlink() == network:
                    found.append(process)
        return found

    def _wire(self, state: str) -> None:
        # On the board's side: where this host's goes down its route goes too, and what is meant for the board leaves by another.
        run("nsenter", "--net", "--target", str(self.init), "ip", "link", "set", WIRE, state)


def missing() -> str | None:
    """Why there can be no board here, and what to do; None where there can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the arm64 board needs an x86-64 Linux"
    if os.geteuid() != 0:
        return "the arm64 board needs root, for its namespaces"
    if absent := sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None}):
        return f"the arm64 board needs Debian's {', '.join(absent)}: apt-get install {' '.join(absent)}"
    if "binfmt_misc" not in Path("/proc/filesystems").read_text():
        return "the arm64 board needs a kernel with binfmt_misc: modprobe binfmt_misc"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the arm64 board needs a kernel with overlayfs: modprobe overlay"
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode != 0:
        return (
            "the arm64 board needs namespaces, which this container is not allowed to make: start it with --privileged"
        )
    if not sources():
        return "the arm64 board is made of Debian's packages, and apt knows none here: apt-get update"
    return None


@contextlib.contextmanager
def arm64_board() -> Iterator[Board]:
    """A fresh board for as long as the context lasts."""
    root = built()
    with tempfile.TemporaryDirectory(prefix="arm64-board-") as name:
        folder = Path(name)
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / key))
        inside = ["sh", str(Path(__file__).with_suffix(".sh")), name, str(root), str(shutil.which(QEMU))]
        with (folder / "log").open("w+") as log:
            init = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", *inside],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, and their end ends the board
            )
            wire = f"board{init.pid}"
            try:
                if init.stdout.readline() != b"started\n":
                    raise AssertionError(f"the board does not start: {(folder / 'log').read_text()}")
                there = _connect(init.pid, wire)
                until(lambda: _greets(there), "the board's ssh server")
                known_hosts = folder / "known_hosts"
                known_hosts.write_text(f"{there} {(folder / 'host.pub').read_text()}")
                yield Board(f"pi@{there}", 22, folder / "user", known_hosts, init.pid)
            finally:
                subprocess.run(["ip", "link", "delete", wire], capture_output=True, check=False)
                try:
                    init.communicate(b"\n", 20)
                finally:
                    init.kill()
                    init.wait()


def _connect(init: int, wire: str) -> str:
    """A cable between this host and the board. Returns the board's address: each process id has a private network of its own."""
    number = init % 16384 * 4
    here, there = (f"10.77.{(number + end) // 256}.{(number + end) % 256}" for end in (1, 2))
    run("ip", "link", "add", wire, "type", "veth", "peer", "name", WIRE, "netns", str(init))
    run("ip", "address", "add", f"{here}/30", "dev", wire)
    run("ip", "link", "set", wire, "up")
    inside = ("nsenter", "--net", "--target", str(init), "ip")
    run(*inside, "address", "add", f"{there}/30", "dev", WIRE)
    run(*inside, "link", "set", WIRE, "up")
    return there


def _greets(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 22), 1) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def sources() -> list[str]:
    """Where apt has this Debian's packages from, as lines of a sources.list."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME")
    wanted = ("Created-By: Packages", "Origin: Debian", "Component: main")
    columns = "$(CODENAME) deb $(REPO_URI) $(RELEASE) main"
    command = ["apt-get", "indextargets", "--format", columns, *wanted]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    named = {line.partition(" ")[::2] for line in listed}
    return sorted(line for codename, line in named if codename.partition("-")[0] == release)


def built() -> Path:
    """The board's root, unpacked once for each set of versions and then shared, unchanged, by all boards.

    Nothing of it is run to make it: packages are unpacked and not configured, wheels are installed by the Python here.
    """
    cache = os.environ.get("SECATEUR_ARM64_BOARD")
    folder = Path(cache) if cache else Path.home() / ".cache" / "secateur" / "arm64-board"
    folder.mkdir(parents=True, exist_ok=True)
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    wheels = [f"{name}=={version(name)}" for name in WHEELS]
    made_of = "\n".join((release, *PACKAGES, *wheels))
    root = folder / f"{release}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            unfinished = root.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            _build(unfinished, release, wheels)
            unfinished.rename(root)
    return root


def _build(root: Path, release: str, wheels: list[str]) -> None:
    run(
        "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--architectures=arm64",
        f"--include={','.join(PACKAGES)}", release, str(root), "-", text="\n".join(sources()),
    )  # fmt: skip
    (interpreter,) = (path.name for path in (root / "usr/bin").glob("python3.*"))
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation=cp",
        f"--python-version={interpreter.removeprefix('python')}", *tags,
        f"--target={root / 'usr/lib/python3/dist-packages'}", *wheels,
    )  # fmt: skip
    # As a package's own script would, and pip has done: a board that compiles what it imports needs twice as long to start Python.
    run(sys.executable, "-m", "compileall", "-q", "-s", str(root), str(root / "usr/lib" / interpreter))


def run(*command: str, text: str | None = None) -> None:
    """Run it to its end; what it has to say is in the error where it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"`{' '.join(command)}` failed: {done.stderr}"
