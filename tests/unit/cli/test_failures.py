from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tempfile

import pytest

from secateur.cli import failures
from secateur.cli.verbosity import SETTINGS, console
from secateur.errors import DefinitionError
from secateur.logs import LOGGER, logging_to


@pytest.fixture
def ends(monkeypatch, capsys, tmp_path):
    """What a command that raises this ends with: exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["secateur", "run", "quick", "--set", "workload.token=abcdef"])

    def end(error, file=None):
        with pytest.raises(SystemExit) as end, failures.reported():
            if file is None:
                raise error
            with logging_to(file):
                raise error
        return end.value.code, capsys.readouterr().err

    return end


def test_an_error_of_ours_is_its_message_and_its_code(ends):
    assert ends(DefinitionError("a.yaml:3: no")) == (2, "secateur: a.yaml:3: no\n")


def test_a_path_that_no_file_system_takes_is_no_bug(ends):
    code, said = ends(OSError(errno.ENAMETOOLONG, "File name too long", "a" * 5000))
    assert (code, said) == (2, f"secateur: '{'a' * 60}…' is longer than a file's name may be.\n")


def test_a_bug_is_one_line_that_names_the_file_with_its_traceback(ends, tmp_path):
    (tmp_path / "mlruns").mkdir()
    code, said = ends(TypeError("'float' and 'complex'\nmore"))
    (file,) = (tmp_path / "mlruns" / "logs").iterdir()
    assert code == 70
    assert said == (
        f"secateur: This is a bug in secateur: TypeError: 'float' and 'complex'. The traceback is in {file}; "
        "please report it with that file.\n"
    )
    text = file.read_text()
    assert "Traceback (most recent call last)" in text
    assert text.startswith("secateur run\n")
    assert "abcdef" not in text, "arguments may hold secrets"


def test_without_a_project_it_lies_in_this_users_temporary_folder(ends, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, said = ends(AssertionError())
    (file,) = tmp_path.glob("secateur-*/logs/bug-*.txt")
    assert code == 70
    assert f"bug in secateur: AssertionError. The traceback is in {file}" in said
    assert file.parent.parent.stat().st_mode & 0o077 == 0


def test_the_project_that_the_command_line_names_is_the_one(ends, tmp_path, monkeypatch):
    (tmp_path / "there" / "mlruns").mkdir(parents=True)
    for words in (["--project", "there"], ["--project=there"]):
        monkeypatch.setattr(sys, "argv", ["secateur", "run", "quick", *words])
        assert str(tmp_path / "there" / "mlruns" / "logs") in ends(KeyError("c"))[1]


def test_a_bug_within_a_run_is_in_the_log_of_the_run(ends, tmp_path):
    file = tmp_path / "log.txt"
    code, said = ends(KeyError("c"), file)
    assert code == 70
    assert f"This is a bug in secateur: KeyError: 'c'. The traceback is in {file};" in said
    assert "Traceback (most recent call last)" in file.read_text()


def test_verbosely_the_traceback_is_shown_too(ends, monkeypatch):
    monkeypatch.setattr(SETTINGS, "level", 1)
    assert "Traceback (most recent call last)" in ends(KeyError("c"))[1]


def test_where_no_disk_takes_it_the_line_comes_all_the_same(ends, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert ends(KeyError("c")) == (70, "secateur: This is a bug in secateur: KeyError: 'c'. Please report it.\n")


def test_an_error_of_ours_within_a_run_is_one_line_of_its_log(ends, tmp_path):
    assert ends(DefinitionError("no"), tmp_path / "log.txt")[0] == 2
    text = (tmp_path / "log.txt").read_text()
    assert text.endswith("ERROR   no\n")
    assert "Traceback" not in text


def test_a_runs_log_takes_what_is_information_and_leaves_the_rest_as_it_was(tmp_path, caplog):
    before = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    with logging_to(tmp_path / "log.txt"):
        logging.getLogger("secateur").info("one")
        logging.getLogger("secateur").warning("two")
        logging.getLogger("secateur.deep").debug("three")
    assert (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)) == before
    assert [line.split()[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["one", "two"]
    assert [record.message for record in caplog.records] == ["two"], "others hear what they would have heard anyway"


class Full:
    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self):
        self.write("")

    close = flush


def test_a_log_that_the_disk_does_not_take_is_no_traceback(tmp_path, capsys):
    with logging_to(tmp_path / "log.txt"):
        LOGGER.handlers[-2].stream.close()
        LOGGER.handlers[-2].stream = Full()
        LOGGER.warning("lost")
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_had_enough_is_no_error():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m secateur schema | head -n 1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_progress_and_log_lines_share_one_console():
    assert console() is console()
    assert console().stderr
