from __future__ import annotations

import errno
import os

import pytest

from secateur.errors import StateError
from secateur.files import disk_errors, private_folder, write


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


@pytest.mark.parametrize("trouble", [errno.ENOENT, errno.ENAMETOOLONG])
def test_a_folder_that_is_gone_or_cannot_be_made_is_said(tmp_path, trouble):
    with pytest.raises(StateError, match="cannot be written"), disk_errors(tmp_path / "x"):
        raise OSError(trouble, os.strerror(trouble))


def test_other_errors_of_the_system_are_not_ours_to_explain(tmp_path):
    with pytest.raises(OSError, match="Interrupted"), disk_errors(tmp_path / "x"):
        raise OSError(errno.EINTR, "Interrupted")


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Where private folders will be."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path / f"secateur-{os.getuid()}"


def test_a_private_folder_is_nobody_elses(base):
    made = private_folder("local")
    assert made == base / "local"
    assert base.stat().st_mode & 0o077 == made.stat().st_mode & 0o077 == 0
    made.chmod(0o775)  # as an earlier version left it
    assert private_folder("local").stat().st_mode & 0o077 == 0
    base.chmod(0o777)
    with pytest.raises(StateError, match="open to others"):
        private_folder("local")


@pytest.mark.parametrize("name", ["", "local"])
@pytest.mark.parametrize("what", ["file", "dangling link", "link"])
def test_what_lies_in_a_private_folders_place_is_said_in_one_line(base, tmp_path, name, what):
    base.mkdir(mode=0o700)
    place = base / name
    if not name:
        base.rmdir()
    if what == "file":
        place.write_text("")
    else:
        place.symlink_to(tmp_path if what == "link" else tmp_path / "nowhere")
    with pytest.raises(StateError, match=r"is no folder\. Remove it, or set TMPDIR") as refused:
        private_folder("local")
    assert str(place) in str(refused.value)


def test_a_file_in_a_folders_place_is_said_in_one_line(tmp_path):
    (tmp_path / "folder").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        write(tmp_path / "folder" / "a.json", "new")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(StateError, match="cannot be written"):
        write(tmp_path / "b.json", "new")
