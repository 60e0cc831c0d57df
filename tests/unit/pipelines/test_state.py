from __future__ import annotations

import json
import time

import pytest

from conftest import REPOSITORY
from secateur.definition import Override, load_pipeline
from secateur.errors import DefinitionError, StateError
from secateur.files import write
from secateur.pipelines import state as module
from secateur.pipelines.state import (
    Stopwatch,
    digest_of,
    find_run,
    locked,
    open_run,
    open_state,
    runs,
)


@pytest.fixture
def definition(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    return load_pipeline("quick")[0]


def test_the_same_definition_finds_its_unfinished_run_and_another_does_not(definition, tmp_path):
    state = open_state(tmp_path)
    first = open_run(tmp_path, definition, "quick", "w")
    assert open_run(tmp_path, definition, "quick", "w") == first
    assert open_run(tmp_path, definition, "quick", "w", fresh=True) != first
    other = load_pipeline("quick", [Override.parse("search.seed=9")])[0]
    assert digest_of(other) != digest_of(definition)
    assert open_run(tmp_path, other, "quick", "w") != first
    assert open_run(tmp_path, definition, "quick", "other weights") != first
    assert len(runs(state)) == 4


def test_a_finished_run_is_not_gone_on_with(definition, tmp_path):
    first = open_run(tmp_path, definition, "quick", "w")
    write(first.path / "done", "")
    assert open_run(tmp_path, definition, "quick", "w") != first


def test_runs_are_found_by_id_and_the_latest_by_default(definition, tmp_path):
    with pytest.raises(DefinitionError, match="There are no runs"):
        find_run(tmp_path, None)
    first = open_run(tmp_path, definition, "quick", "w", fresh=True)
    time.sleep(0.01)
    second = open_run(tmp_path, definition, "quick", "w", fresh=True)
    assert find_run(tmp_path, None) == second
    assert find_run(tmp_path, first.run_id) == first
    with pytest.raises(DefinitionError, match=f"Did you mean '{first.run_id}"):
        find_run(tmp_path, first.run_id + "x")
    write(second.path / "done", "")
    assert find_run(tmp_path, None) == second
    assert find_run(tmp_path, None, unfinished=True) == first
    write(first.path / "done", "")
    with pytest.raises(DefinitionError, match="Every run is finished"):
        find_run(tmp_path, None, unfinished=True)


def test_a_full_disk_is_said_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEAST_FREE", 2**80)
    with pytest.raises(StateError, match="MiB are needed"):
        open_state(tmp_path)


def test_a_run_is_held_by_one_driver(definition, tmp_path):
    run = open_run(tmp_path, definition, "quick", "w")
    with locked(run), pytest.raises(StateError, match="is in use by process"), locked(run):
        pass
    with locked(run):
        pass


def test_stage_times_add_up_over_restarts(tmp_path):
    file = tmp_path / "seconds.json"
    for _ in range(2):
        watch = Stopwatch(file)
        with pytest.raises(ValueError, match="stop"), watch.stage("search"):
            time.sleep(0.01)
            raise ValueError("stop")
    assert json.loads(file.read_text())["search"] >= 0.02
