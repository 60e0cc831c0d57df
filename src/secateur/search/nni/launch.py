"""How NNI's manager is started: by a guardian, on loopback, with everything it keeps in one folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import nni_node

from secateur.search.nni import guardian
from secateur.search.nni.settings import ExperimentSettings

NODE = Path(nni_node.__path__[0])
"""NNI brings its own node, and finds its modules only from there."""

CLEAN_UP = """
cd "$HOME/nni-experiments/{id}" || exit 0
for file in environments/*/trial_keeper*/trial_keeper.pid; do
  grep -q nni_node "/proc/$(cat "$file")/cmdline" && kill -KILL -- "-$(cat "$file")"
done
grep -lzs "^NNI_EXP_ID={id}$" /proc/[0-9]*/environ | cut -d/ -f3 | xargs -r kill -KILL
cd .. && rm -rf "{id}"
"""
"""What ends and removes an experiment on a remote host: a keeper whose manager is gone forgets its trials."""


def launch(settings: ExperimentSettings, experiment: str, port: int) -> subprocess.Popen[bytes]:
    """Start the guardian, which starts the manager and, for a remote host, the tunnel back from there.

    Closing its standard input, or the death of this process, ends all of them. Raises DefinitionError for a remote host without
    a known key.
    """
    folder = settings.folder.absolute()
    home = folder / "home"  # NNI keeps its list of experiments in the home folder, whatever it is told
    _manifest(home, folder, experiment, port)
    preload = folder / "preload.js"
    shutil.copyfile(Path(__file__).with_name("preload.js"), preload)
    environment = {
        **os.environ,
        "HOME": str(home),
        "NODE_OPTIONS": f'--require "{preload}"',
    }
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1"]))
    commands, afterwards = [_manager(folder, experiment, port, "remote" if settings.remote else "local")], []
    if settings.remote:
        far = free_port()  # most likely free over there as well; where it is not, ssh says so and all of it ends
        environment["SECATEUR_NNI_REMOTE_PORT"] = str(far)
        environment["SECATEUR_NNI_HOST_KEYS"] = " ".join(settings.remote.key_hashes())
        *ssh, host = settings.remote.ssh()
        commands.insert(0, [*ssh, "-N", "-R", f"127.0.0.1:{far}:127.0.0.1:{port}", host])
        afterwards.append([*ssh, host, CLEAN_UP.format(id=experiment)])
    guarded = guardian.Guarded(commands, str(folder), str(folder / "manager.log"), afterwards)
    specification = folder / "guarded.json"
    specification.write_text(json.dumps(asdict(guarded)), encoding="utf-8")
    return subprocess.Popen(  # noqa: S603 # our own file
        [sys.executable, "-I", guardian.__file__, str(specification)],
        stdin=subprocess.PIPE,
        env=environment,
        cwd=NODE,
        start_new_session=True,
    )


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _manager(folder: Path, experiment: str, port: int, mode: str) -> list[str]:
    options = {
        "port": port,
        "experiment-id": experiment,
        "action": "create",
        "mode": mode,
        "experiments-directory": folder,
        "log-level": "info",
        "python-interpreter": sys.executable,
    }
    spelt = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [str(NODE / "node"), "--max-old-space-size=4096", str(NODE / "main.js"), *spelt]


def _manifest(home: Path, folder: Path, experiment: str, port: int) -> None:
    """The list of experiments, without which the manager fills its log with complaints."""
    file = home / "nni-experiments" / ".experiment"
    file.parent.mkdir(parents=True, exist_ok=True)
    entry = {"id": experiment, "port": port, "status": "INITIALIZED", "startTime": int(time.time() * 1000), "tag": []}
    file.write_text(json.dumps({experiment: {**entry, "logDir": str(folder)}}), encoding="utf-8")
