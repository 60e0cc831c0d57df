"""What goes wrong in the world: kills, crashes, full disks. Nothing that was finished is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from end_to_end.conftest import SEARCH_ALONE, call, environment, make_project, secateur
from end_to_end.story import Story, kill, start, told
from waiting import LIMIT, until

CRASH = """

def crash_once(outputs, targets):
    import ctypes
    from pathlib import Path
    if Path("crash").exists():
        Path("crash").unlink()
        ctypes.string_at(0)
    return torch.nn.functional.cross_entropy(outputs, targets)

import dataclasses, torch
made = workload
def workload():
    return dataclasses.replace(made(), loss=crash_once)
"""


def half_migrate(state):
    """What an earlier version left where it was killed: MLflow's first tables, and some migrations; an empty file of Optuna's."""
    from alembic import command as alembic
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine, text

    state.mkdir()
    (state / "studies.db").touch()
    engine = create_engine(f"sqlite:///{state / 'mlflow.db'}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(str(engine.url))
        config.attributes["connection"] = connection
        alembic.upgrade(config, "+10")
        connection.execute(text("DELETE FROM alembic_version"))  # a migration's tables are there, its mark is not yet
    engine.dispose()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """One run: killed and interrupted in the search, moved, killed in the recovery, crashed there, and ended."""
    folder = tmp_path_factory.mktemp("story")
    story = Story(make_project(folder / "before"), ("run", "tiny"))
    model = story.project / "my_model.py"
    with model.open("a") as file:
        file.write(CRASH)
    half_migrate(story.project / "mlruns")
    rng = random.Random(4)

    def when_told(count, do):
        def meanwhile(process):
            until(lambda: len(story.told()) >= count, alive=process)
            time.sleep(rng.random() * 0.2)
            do(process)

        return meanwhile

    def second_driver(process):
        os.killpg(process.pid, signal.SIGSTOP)
        story.refused["second driver"] = call(story.project, "resume")
        kill(process)

    def kill_in_recovery(process):
        until(lambda: list(story.run.glob("finalists/*/checkpoint.safetensors")), alive=process)
        kill(process)

    def crash_in_recovery(process):
        log = story.run / "log.txt"
        before = log.read_text().count("recover: begins")
        until(lambda: log.read_text().count("recover: begins") > before, alive=process)
        until(lambda: list(story.run.glob("finalists/*/trained.json")), alive=process)
        (story.project / "crash").touch()

    story.act("killed", when_told(2, second_driver))
    story.act("interrupted", when_told(7, lambda process: os.killpg(process.pid, signal.SIGINT)))
    text = model.read_text()
    model.write_text(text.replace('network("residual")', 'network("VGG")'))
    story.refused["other weights"] = call(story.project, "resume")
    model.write_text(text)
    story.project = story.project.rename(folder / "after")
    story.command = ("resume",)
    story.act("killed in recovery", kill_in_recovery)
    story.command = ("run", "tiny")
    story.act("ended", crash_in_recovery)
    return story


def test_a_run_that_was_killed_and_moved_ends_with_all_that_was_finished(story):
    assert story.acts["ended"].code == 0, story.acts["ended"].err
    assert not (story.project.parent / "before").exists()
    for earlier, later in itertools.pairwise(act.kept for act in story.acts.values()):
        assert earlier.items() <= later.items(), "a finished trial has changed or gone"
    assert [len(act.kept) >= least for act, least in zip(story.acts.values(), (2, 7, 16), strict=False)] == [True] * 3
    own = [t["evaluation"]["plan_key"] for t in story.record["trials"] if t["same_as"] is None]
    assert len(own) == len(set(own)) == 16
    labels = [t["label"] for t in story.record["trials"] if t["label"]]
    assert len(labels) == len(set(labels))


def test_two_drivers_on_one_run_are_refused(story):
    refused = story.refused["second driver"]
    assert refused.returncode == 75
    assert "is in use by process" in refused.stderr


def test_control_c_says_how_to_go_on(story):
    interrupted = story.acts["interrupted"]
    assert interrupted.code == 130
    assert "the same command goes on from here" in interrupted.err
    assert "Traceback" not in interrupted.err


def test_a_run_does_not_go_on_with_other_weights(story):
    refused = story.refused["other weights"]
    assert refused.returncode == 75
    assert "started with other weights" in refused.stderr


def test_a_crash_of_native_code_in_the_recovery_costs_a_retry_and_not_the_run(story):
    said = story.acts["ended"].err
    assert "native code crashed (SIGSEGV) while fine-tuning the finalists, in " in said
    assert re.search(r"my_model.py:\d+ \(crash_once\)", said)
    assert "Going on with the run from what was finished (1 of 2)." in said
    assert len(list(story.run.glob("crash-*.txt"))) == 1
    assert all(finalist["failure"] is None for finalist in story.record["finalists"])


def test_a_half_migrated_database_is_set_aside_and_the_run_registers(story):
    assert "half-made" in story.acts["ended"].err
    assert "registered: tiny-model version 1" in story.acts["ended"].out
    (aside,) = story.project.glob("mlruns/mlflow.db.broken-*")
    assert aside.stat().st_size > 0


def test_a_project_that_is_moved_loads_by_alias_and_shows_its_run(story):
    before = story.project
    again = story.project = before.rename(before.parent / "and again")
    relocated = call(again, "relocate")
    assert (relocated.returncode, relocated.stdout) == (0, f"moved from {before}\n")
    assert call(again.parent, "relocate", "--project", str(again)).stdout == "Nothing to do: every address is right.\n"
    load = (
        "import mlflow, numpy as np; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db'); "
        "print(mlflow.pyfunc.load_model('models:/tiny-model@candidate').predict(np.zeros((2, 3, 8, 8), np.float32))['output'].shape)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", load], cwd=again, env=environment(), capture_output=True, text=True, check=False
    )
    assert loaded.stdout.startswith("(2, "), loaded.stderr
    assert call(again, "show").returncode == 0
    assert call(again, "flush").returncode == 0


def test_nothing_to_relocate_is_said(tmp_path):
    refused = call(tmp_path, "relocate")
    assert refused.returncode == 2
    assert "nothing was registered here" in refused.stderr


def test_a_crash_in_a_check_is_said(tmp_path):
    project = make_project(tmp_path)
    with (project / "my_model.py").open("a") as file:
        file.write("\nimport ctypes\nctypes.string_at(0)\n")
    checked = secateur(project, "check", "tiny", TMPDIR=str(tmp_path))
    assert checked.returncode == 70
    assert "native code crashed (SIGSEGV)" in checked.stderr
    assert re.search(r"my_model.py:\d+ \(<module>\)", checked.stderr)


CREATE = """
import sys
from pathlib import Path
from secateur.registry import open_embedded

open_embedded(Path(sys.argv[1]))
"""


def test_killed_while_mlflow_s_database_is_made_the_next_start_makes_it(tmp_path):
    """kill -9 at random moments of the some sixty migrations."""
    rng = random.Random(7)
    state = tmp_path / "mlruns"
    state.mkdir()
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", CREATE, str(state)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        with contextlib.suppress(AssertionError):  # it was quicker
            until(lambda: list(state.glob(".mlflow.db.*.part")), alive=process)
        time.sleep(rng.random())
        kill(process)
        process.communicate()
        assert not list(state.glob("mlflow.db.broken-*"))
    made = subprocess.run(
        [sys.executable, "-c", CREATE, str(state)], env=environment(), check=False, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    with contextlib.closing(sqlite3.connect(state / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    assert not list(state.glob("*.part*"))


def test_a_state_directory_that_cannot_be_written_is_said_before_anything_is_done(tmp_path):
    project = make_project(tmp_path)
    (project / "mlruns").write_text("I am a file")
    done = call(project, "run", "tiny")
    assert done.returncode == 75
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_stops_the_run_and_room_lets_it_go_on(tmp_path):
    project = make_project(tmp_path)
    state = project / "mlruns"
    state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", str(state)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a file system")
    try:
        command = ("run", "tiny", "--set", "search.trials=8", *SEARCH_ALONE)
        process = start(project, *command)
        until(lambda: len(told(project)) >= 3, alive=process)
        filler = state / "filler"
        with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
            while True:
                stream.write(b"\0" * 65536)
        _, stderr = process.communicate(timeout=LIMIT)
        assert process.returncode == 75, stderr
        assert "run the same command again" in stderr
        assert "Traceback" not in stderr
        filler.unlink()
        before = told(project)
        done = call(project, *command)
        assert done.returncode == 0, done.stderr
        assert before.items() <= told(project).items()
    finally:
        subprocess.run(["umount", "-l", str(state)], check=False)
