"""What goes wrong in the world: kills, full disks, dead servers. Nothing that was finished is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request

import pytest

from end_to_end.conftest import command, environment, make_project, secateur
from waiting import LIMIT, until


def start(project, *arguments):
    return subprocess.Popen(
        command(*arguments), cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


SEARCH_ALONE = ("--set", "recover=null", "--set", "register=null")
"""For what goes wrong in the search: neither fine-tuning nor MLflow is needed to see it."""


def evaluated(project) -> dict[str, str]:
    """Told trials of the only study: number → evaluation. Read only: a run may be creating the database right now."""
    query = (
        "select t.number, a.value_json from trials t join trial_system_attributes a on a.trial_id = t.trial_id "
        "where a.key = 'secateur:evaluation' and t.state in ('COMPLETE', 'FAIL', 'PRUNED')"
    )
    with contextlib.closing(sqlite3.connect(f"file:{project / 'mlruns' / 'studies.db'}?mode=ro", uri=True)) as database:
        return dict(database.execute(query).fetchall())


def kill(process):
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_killed_in_search_and_in_recovery_it_goes_on_and_loses_nothing(tmp_path):
    """kill -9 at random moments of the search, then in the fine-tuning; the last start ends the same run."""
    project = make_project(tmp_path)
    rng = random.Random(4)
    kept: dict[str, str] = {}
    for target in (2, 7, 12):
        process = start(project, "run", "tiny")
        until(lambda: told(project) >= target, alive=process)  # noqa: B023
        time.sleep(rng.random() * 0.2)
        kill(process)
        now = evaluated(project)
        assert all(now[number] == text for number, text in kept.items()), "a finished trial has changed or gone"
        assert len(now) >= target
        kept = now
    process = start(project, "run", "tiny")
    finalists = project / "mlruns" / "runs"
    until(lambda: list(finalists.glob("*/finalists/*/checkpoint.safetensors")), alive=process)
    kill(process)
    done = secateur(project, "run", "tiny")
    assert done.returncode == 0, done.stderr
    (run,) = finalists.iterdir()
    record = json.loads((run / "record.json").read_text())
    own = [t["evaluation"]["plan_key"] for t in record["trials"] if t["same_as"] is None]
    assert len(own) == len(set(own)) == 16
    now = evaluated(project)
    assert all(now[number] == text for number, text in kept.items())
    labels = [t["label"] for t in record["trials"] if t["label"]]
    assert len(labels) == len(set(labels))


def told(project) -> int:
    """How many trials have been told, 0 while there is no study yet."""
    try:
        return len(evaluated(project))
    except sqlite3.OperationalError:
        return 0


def test_control_c_says_how_to_go_on(tmp_path):
    project = make_project(tmp_path)
    process = start(project, "run", "tiny", *SEARCH_ALONE)
    until(lambda: told(project) >= 3, alive=process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "the same command goes on from here" in stderr
    assert "Traceback" not in stderr
    assert secateur(project, "resume").returncode == 0


CRASH = """

def crash_once(outputs, targets):
    import ctypes
    import dataclasses
    from pathlib import Path
    if Path("crash").exists() and list(Path("mlruns").glob("runs/*/finalists/*")):
        Path("crash").unlink()
        ctypes.string_at(0)
    return torch.nn.functional.cross_entropy(outputs, targets)

import dataclasses, torch
made = workload
def workload():
    return dataclasses.replace(made(), loss=crash_once)
"""


def test_a_crash_of_native_code_in_the_recovery_costs_a_retry_and_not_the_run(tmp_path):
    project = make_project(tmp_path)
    with (project / "my_model.py").open("a") as file:
        file.write(CRASH)
    (project / "crash").touch()
    done = secateur(project, "run", "tiny", "--set", "search.trials=6", "--set", "register=null")
    assert done.returncode == 0, done.stderr
    assert "native code crashed (SIGSEGV) while fine-tuning the finalists, in " in done.stderr
    assert re.search(r"my_model.py:\d+ \(crash_once\)", done.stderr)
    assert "Going on with the run from what was finished (1 of 2)." in done.stderr
    (run,) = (project / "mlruns" / "runs").iterdir()
    assert len(list(run.glob("crash-*.txt"))) == 1
    record = json.loads((run / "record.json").read_text())
    assert all(finalist["failure"] is None for finalist in record["finalists"])


def test_a_crash_in_a_check_is_said(tmp_path):
    project = make_project(tmp_path)
    with (project / "my_model.py").open("a") as file:
        file.write("\nimport ctypes\nctypes.string_at(0)\n")
    checked = secateur(project, "check", "tiny", TMPDIR=str(tmp_path))
    assert checked.returncode == 70
    assert "native code crashed (SIGSEGV)" in checked.stderr
    assert re.search(r"my_model.py:\d+ \(<module>\)", checked.stderr)


def test_a_run_does_not_go_on_with_other_weights(tmp_path):
    project = make_project(tmp_path)
    process = start(project, "run", "tiny", *SEARCH_ALONE)
    until(lambda: told(project) >= 1, alive=process)
    kill(process)
    model = project / "my_model.py"
    model.write_text(model.read_text().replace('network("residual")', 'network("VGG")'))
    refused = secateur(project, "resume")
    assert refused.returncode == 75
    assert "started with other weights" in refused.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def tracking_server(folder, port):
    """MLflow's own server, with the options that docker/compose.yaml gives it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
         f"--backend-store-uri=sqlite:///{folder / 'server.db'}", f"--artifacts-destination={folder / 'server'}"],
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as response:
                return response.status == 200
        except OSError:
            return False

    try:
        until(answers, alive=process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", CREATE, str(state)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        with contextlib.suppress(AssertionError):  # it was quicker
            until(lambda: list(state.glob(".mlflow.db.*.part")), alive=process)
        time.sleep(rng.random())
        kill(process)
        assert not list(state.glob("mlflow.db.broken-*"))
    made = subprocess.run(
        [sys.executable, "-c", CREATE, str(state)], env=environment(), check=False, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    with contextlib.closing(sqlite3.connect(state / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    assert not list(state.glob("*.part*"))


def test_a_half_migrated_database_is_set_aside_and_the_run_registers(tmp_path):
    """What an earlier version left where it was killed: MLflow's first tables, and some migrations."""
    from alembic import command as alembic
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine, text

    project = make_project(tmp_path)
    database = project / "mlruns" / "mlflow.db"
    database.parent.mkdir()
    engine = create_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(str(engine.url))
        config.attributes["connection"] = connection
        alembic.upgrade(config, "+10")
        connection.execute(text("DELETE FROM alembic_version"))  # a migration's tables are there, its mark is not yet
    engine.dispose()
    (project / "mlruns" / "studies.db").touch()
    done = secateur(project, "run", "tiny", "--set", "search.trials=6", "--set", "recover.finalists=1")
    assert done.returncode == 0, done.stderr
    assert "half-made" in done.stderr
    assert "registered: tiny-model version 1" in done.stdout
    (aside,) = project.glob("mlruns/mlflow.db.broken-*")
    assert aside.stat().st_size > 0


def test_a_dead_tracking_server_loses_nothing_and_is_flushed_later(tmp_path):
    project, port = make_project(tmp_path), free_port()
    address = f"http://127.0.0.1:{port}"
    server = {"MLFLOW_TRACKING_URI": address}
    done = secateur(project, "run", "tiny", "--set", "search.trials=6", "--set", "recover.finalists=1", **server)
    assert done.returncode == 75
    assert "could not take run" in done.stderr
    assert "secateur flush tiny-" in done.stderr
    (run,) = (project / "mlruns" / "runs").iterdir()
    assert (run / "record.json").is_file()
    assert (run / "report.html").is_file()
    assert not (project / "mlruns" / "mlflow.db").exists(), "nothing went elsewhere"
    assert secateur(project, "flush", **server).returncode == 75
    with tracking_server(tmp_path, port):
        flushed = secateur(project, "flush", **server)
        assert flushed.returncode == 0, flushed.stderr
        assert "@candidate" in flushed.stdout
        question = f"{address}/api/2.0/mlflow/registered-models/alias?name=tiny-model&alias=candidate"
        with urllib.request.urlopen(question, timeout=30) as response:
            version = json.load(response)["model_version"]
    assert {tag["key"]: tag["value"] for tag in version["tags"]}["secateur.run_id"] == run.name
    assert any((tmp_path / "server").rglob("model.onnx")), "the artifacts went through the server"


def test_a_state_directory_that_cannot_be_written_is_said_before_anything_is_done(tmp_path):
    project = make_project(tmp_path)
    (project / "mlruns").write_text("I am a file")
    done = secateur(project, "run", "tiny")
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
        process = start(project, "run", "tiny", *SEARCH_ALONE)
        until(lambda: told(project) >= 3, alive=process)
        filler = state / "filler"
        with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
            while True:
                stream.write(b"\0" * 65536)
        _, stderr = process.communicate(timeout=LIMIT)
        assert process.returncode == 75, stderr
        assert "run the same command again" in stderr
        assert "Traceback" not in stderr
        filler.unlink()
        before = evaluated(project)
        done = secateur(project, "run", "tiny", *SEARCH_ALONE)
        assert done.returncode == 0, done.stderr
        assert before.items() <= evaluated(project).items()
    finally:
        subprocess.run(["umount", "-l", str(state)], check=False)


def test_a_project_that_is_moved_goes_on_where_it_lies(tmp_path):
    """Killed in the search, moved, resumed, moved once more: loaded by alias, shown, and its studies opened."""
    project = make_project(tmp_path / "before")
    process = start(project, "run", "tiny", "--set", "search.trials=6", "--set", "recover.finalists=1")
    until(lambda: told(project) >= 2, alive=process)
    kill(process)
    kept = evaluated(project)
    project = project.rename(tmp_path / "after")
    resumed = secateur(project, "resume")
    assert resumed.returncode == 0, resumed.stderr
    assert kept.items() <= evaluated(project).items()
    assert not (tmp_path / "before").exists()

    again = project.rename(tmp_path / "and again")
    relocated = secateur(again, "relocate")
    assert (relocated.returncode, relocated.stdout) == (0, f"moved from {project}\n")
    assert secateur(tmp_path, "relocate", "--project", str(again)).stdout == "Nothing to do: every address is right.\n"
    load = (
        "import mlflow, numpy as np; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db'); "
        "print(mlflow.pyfunc.load_model('models:/tiny-model@candidate').predict(np.zeros((2, 3, 8, 8), np.float32))['output'].shape)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", load], cwd=again, env=environment(), capture_output=True, text=True, check=False
    )
    assert loaded.stdout.startswith("(2, "), loaded.stderr
    assert secateur(again, "show").returncode == 0
    assert secateur(again, "flush").returncode == 0


def test_nothing_to_relocate_is_said(tmp_path):
    refused = secateur(tmp_path, "relocate")
    assert refused.returncode == 2
    assert "nothing was registered here" in refused.stderr


def test_two_drivers_on_one_run_are_refused(tmp_path):
    project = make_project(tmp_path)
    process = start(project, "run", "tiny", *SEARCH_ALONE, "--set", "search.trials=200")
    until(lambda: told(project) >= 1, alive=process)
    second = secateur(project, "resume")
    kill(process)
    assert second.returncode == 75
    assert "is in use by another process" in second.stderr
