"""Parts of a measurement that need no device."""

from __future__ import annotations

import os

from secateur.agent import measuring


def test_the_oldest_files_are_forgotten_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "KEPT_BYTES", 25)
    for age, name in enumerate(["new", "used", "old", "oldest"]):
        (tmp_path / name).write_bytes(b"0" * 10)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "inductor").mkdir()
    measuring._forget_the_oldest(tmp_path, keep={tmp_path / "oldest"})
    assert {entry.name for entry in tmp_path.iterdir()} == {"new", "used", "oldest", "inductor"}
    measuring._forget_the_oldest(tmp_path / "nowhere", keep=set())
