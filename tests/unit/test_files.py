from __future__ import annotations

import errno
import os

import pytest

from secateur.errors import StateError
from secateur.files import disk_errors, write


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write(file, "old")

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(file), "write_bytes", full)
    with pytest.raises(StateError, match="cannot be written: No space left on device. Free some space"):
        write(file, "new")
    monkeypatch.undo()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_other_errors_of_the_system_are_not_ours_to_explain(tmp_path):
    with pytest.raises(OSError, match="Interrupted"), disk_errors(tmp_path / "x"):
        raise OSError(errno.EINTR, "Interrupted")
