"""A run that is started as often as it takes, and what each start left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from end_to_end.conftest import command, environment
from waiting import LIMIT

TOLD = """
select t.number, arm.value_json, evaluation.value_json from trials t
join trial_user_attributes arm on arm.trial_id = t.trial_id and arm.key = 'arm'
join trial_system_attributes evaluation on evaluation.trial_id = t.trial_id and evaluation.key = 'secateur:evaluation'
where t.state in ('COMPLETE', 'FAIL', 'PRUNED')
"""


def told(project: Path) -> dict[int, tuple[str, str]]:
    """Told trials of the only study: number → (arm, evaluation). What a kill left of a transaction is rolled back."""
    database = project / "mlruns" / "studies.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            return {number: (json.loads(arm), text) for number, arm, text in connection.execute(TOLD)}
    except sqlite3.OperationalError:  # it is not there yet
        return {}


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        command(*arguments), cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the driver and of whatever it has started in its group."""
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Act:
    """A start of the command and how it ended. kept: the told trials then."""

    code: int
    out: str
    err: str
    kept: dict[int, tuple[str, str]]


@dataclass
class Story:
    """One run of a project. refused: other commands that were tried meanwhile."""

    project: Path
    command: tuple[str, ...]
    acts: dict[str, Act] = field(default_factory=dict)
    refused: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The run's folder."""
        (run,) = (self.project / "mlruns" / "runs").iterdir()
        return run

    @property
    def record(self) -> Any:
        """The record of the finished run."""
        return json.loads((self.run / "record.json").read_text())

    def told(self) -> dict[int, tuple[str, str]]:
        """The trials that have been told so far."""
        return told(self.project)

    def act(self, name: str, meanwhile: Callable[[subprocess.Popen[str]], None] = lambda _: None) -> None:
        """Start the command. meanwhile: is given the driver's process; it ends something, or nothing."""
        process = start(self.project, *self.command)
        try:
            meanwhile(process)
            out, err = process.communicate(timeout=5 * LIMIT)
        finally:
            kill(process)
        self.acts[name] = Act(process.returncode, out, err, self.told())
