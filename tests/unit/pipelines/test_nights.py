from __future__ import annotations

import json
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from secateur.cli.commands.retraining import seconds_of
from secateur.definition import RetrainDefinition
from secateur.errors import DefinitionError, StateError, WorkloadError
from secateur.pipelines import nights
from secateur.pipelines.nights import Night, open_night, weights_of
from secateur.pipelines.state import held


def weights(folder, **settings):
    night = Night(folder / "mlruns" / "nights" / "n" / "k")
    return weights_of(night, RetrainDefinition(**settings), folder, None)


def test_without_weights_the_workload_knows_them(tmp_path):
    assert weights(tmp_path) == (None, "the workload's own")


def test_a_path_is_of_the_project(tmp_path):
    (tmp_path / "w.safetensors").touch()
    assert weights(tmp_path, weights="w.safetensors") == (str(tmp_path / "w.safetensors"),) * 2
    with pytest.raises(DefinitionError, match="there are no weights .*gone"):
        weights(tmp_path / "other", weights="gone")


def test_a_training_is_called_once_a_night_and_finds_what_it_left_when_it_was_interrupted(tmp_path):
    (tmp_path / "own.py").write_text(
        "def train(folder):\n"
        "    with (folder / 'calls').open('a') as calls:\n"
        "        calls.write('x')\n"
        "    if (folder / 'calls').read_text() == 'x':\n"
        "        raise KeyboardInterrupt\n"
        "    (folder / 'w.pt').touch()\n"
        "    return 'w.pt'\n"
    )
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path, weights="own.py:train")
    for _ in range(2):
        path, source = weights(tmp_path, weights="own.py:train")
    folder = tmp_path / "mlruns" / "nights" / "n" / "k" / "weights"
    assert (path, source) == (str(folder / "w.pt"), "own.py:train")
    assert (folder / "calls").read_text() == "xx"


@pytest.mark.parametrize("body", ["return None", "return 'nowhere'", "return 7", "raise RuntimeError('out of memory')"])
def test_a_training_that_gives_no_weights_is_refused(tmp_path, body):
    (tmp_path / "own.py").write_text(f"def train(folder):\n    {body}\n")
    with pytest.raises(WorkloadError, match=r"own\.py:train"):
        weights(tmp_path, weights="own.py:train")


@pytest.mark.parametrize("spec", ["models:/resnet", "models:/resnet/one", "models:/resnet@", "models:/@staging"])
def test_an_address_in_the_registry_is_exact(tmp_path, spec):
    with pytest.raises(DefinitionError, match="models:/NAME@ALIAS"):
        weights(tmp_path, weights=spec)


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "x" * 101, "a b"])
def test_a_run_key_is_a_folder_s_name(tmp_path, key):
    with pytest.raises(DefinitionError, match="--run-key"):
        open_night(tmp_path, "n", key)


def test_without_a_key_the_latest_night_that_is_not_over_goes_on(tmp_path):
    for number, name in enumerate(("over", "old", "open")):
        open_night(tmp_path, "n", name).keep("weights", {})
        folder = tmp_path / "mlruns" / "nights" / "n" / name
        os.utime(folder, (number, number))
    open_night(tmp_path, "n", "over").keep("result", {})
    os.utime(tmp_path / "mlruns" / "nights" / "n" / "over", (9, 9))
    assert open_night(tmp_path, "n", None).key == "open"
    for name in ("old", "open"):
        open_night(tmp_path, "n", name).keep("result", {})
    assert open_night(tmp_path, "n", None).key not in ("over", "old", "open")


def test_without_a_key_a_training_that_was_interrupted_goes_on_too(tmp_path):
    night = open_night(tmp_path, "n", "2026-03-01")
    (night.folder / "weights").mkdir(parents=True)
    assert open_night(tmp_path, "n", None).key == "2026-03-01"


def test_what_was_half_fetched_of_another_version_is_gone(tmp_path, monkeypatch):
    class Server:
        def files_of(self, _version, folder):
            folder.mkdir(parents=True)
            (folder / "new.safetensors").touch()
            return folder

    monkeypatch.setattr(nights, "registry", lambda *_: nullcontext(Server()))
    monkeypatch.setattr(nights, "version_of", lambda *_: SimpleNamespace(number="8"))
    folder = tmp_path / "mlruns" / "nights" / "n" / "k" / "weights"
    folder.mkdir(parents=True)
    (folder / "old.safetensors").touch()
    assert weights(tmp_path, weights="models:/resnet@staging") == (str(folder / "new.safetensors"), "models:/resnet/8")


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1h1m1s", 3661)]
)
def test_a_deadline_in_hours_minutes_and_seconds(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "0s", "-1h", "1.5h", "30m1h", "tomorrow"])
def test_a_deadline_that_is_none_is_refused(text):
    with pytest.raises(DefinitionError, match="--deadline"):
        seconds_of(text)


def test_a_lock_says_whose_it_is_and_a_dead_owner_s_is_taken_over(tmp_path, caplog):
    lock = tmp_path / "folder" / "lock"
    with (
        held(lock, "The study"),
        pytest.raises(StateError, match=rf"^The study is in use by process {os.getpid()} on \S+, for 0"),
        held(lock, "The study"),
    ):
        pass
    assert not caplog.records
    lock.write_text(json.dumps({"process": 7, "host": "elsewhere", "since": 0.0}))  # as a killed one leaves it
    with held(lock, "The study"):
        assert json.loads(lock.read_text())["process"] == os.getpid()
    assert "The study was left by process 7 on elsewhere" in caplog.text
    assert "taken over" in caplog.text
    lock.write_text("{")
    with held(lock, "The study"):
        pass
    assert "left by another process" in caplog.text
