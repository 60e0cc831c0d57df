"""A PostgreSQL server of a test's own: an empty cluster in a temporary folder, reached by a socket there."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waiting import until


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The address of its database, as SQLAlchemy reads it. Skips where the server or its client for Python is missing."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]
    if not found or importlib.util.find_spec("psycopg2") is None:
        pytest.skip("needs PostgreSQL (Debian: postgresql) and psycopg2 (pip: psycopg2-binary)")
    programs = Path(found[0]).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # the path of a socket must be short
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # as which it does not start
        shutil.chown(folder, "postgres")
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
    options: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **owner}
    made = [programs / "initdb", "-D", "data", "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(made, check=True, **options)
    server = subprocess.Popen([programs / "postgres", "-D", "data", "-k", folder, "-h", "", "-F"], **options)
    try:
        until(lambda: subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode == 0)
        yield f"postgresql+psycopg2://mlflow@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: whatever is open is lost with the folder
        server.wait()
        shutil.rmtree(folder)
