from __future__ import annotations

import contextlib
import os
import sqlite3

import pytest

from secateur import databases
from secateur.databases import Schema, ensure
from secateur.errors import StateError


def execute(file, *statements):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def make(file):
    """A library's way: tables first, the row that says that all are there last."""
    execute(file, "CREATE TABLE things (name)", "CREATE TABLE version (number)", "INSERT INTO version VALUES (1)")


SCHEMA = Schema("Library", ("version",), ("things",), make)


def things(file):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM things")]


def test_what_is_whole_is_left_alone(tmp_path):
    database = tmp_path / "a folder" / "it.db"
    database.parent.mkdir()
    ensure(database, SCHEMA)
    execute(database, "INSERT INTO things VALUES ('kept')")
    ensure(database, SCHEMA)
    assert things(database) == ["kept"]
    assert [f.name for f in database.parent.iterdir() if f.name.endswith("part")] == []


@pytest.mark.parametrize("begun", [(), ("CREATE TABLE things (name)",)])
def test_what_was_half_made_is_made_anew(tmp_path, caplog, begun):
    database = tmp_path / "it.db"
    execute(database, *begun)
    ensure(database, SCHEMA)
    assert things(database) == []
    aside = [f.name for f in tmp_path.glob("it.db.broken-*")]
    assert len(aside) == len(begun)
    assert all(name in caplog.text for name in aside)


def test_an_old_journal_is_not_applied_to_the_new_database(tmp_path):
    """A kill inside a transaction leaves the journal: it follows its database."""
    database = tmp_path / "it.db"
    execute(database, "CREATE TABLE things (name)")
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO things VALUES (?)", [("x" * 5000,)] * 200)
        os._exit(9)
    os.waitpid(child, 0)
    assert (tmp_path / "it.db-journal").exists()
    ensure(database, SCHEMA)
    assert things(database) == []
    ensure(database, SCHEMA)


def test_a_kill_while_it_is_made_leaves_nothing_in_the_way(tmp_path):
    database = tmp_path / "it.db"

    def killed(file):
        execute(file, "CREATE TABLE things (name)")
        os._exit(9)

    child = os.fork()
    if child == 0:
        ensure(database, Schema("Library", ("version",), ("things",), killed))
    os.waitpid(child, 0)
    assert not database.exists()
    assert list(tmp_path.glob(".it.db.*.part"))
    ensure(database, SCHEMA)
    assert things(database) == []
    assert not list(tmp_path.glob(".it.db.*.part"))


def test_a_database_with_something_in_it_is_never_moved(tmp_path):
    """Another version's, say: its library says what is wrong with it."""
    database = tmp_path / "it.db"
    execute(database, "CREATE TABLE things (name)", "INSERT INTO things VALUES ('kept')")
    ensure(database, SCHEMA)
    assert things(database) == ["kept"]


def test_somebody_elses_database_is_refused(tmp_path):
    database = tmp_path / "it.db"
    execute(database, "CREATE TABLE recipes (name)")
    with pytest.raises(StateError, match="not a database of Library: it holds recipes. Move it away"):
        ensure(database, SCHEMA)


@pytest.mark.parametrize("content", [b"plain text, and a good deal of it" * 9, None])
def test_what_is_no_database_is_refused(tmp_path, content):
    database = tmp_path / "it.db"
    if content is None:
        database.mkdir()
    else:
        database.write_bytes(content)
    with pytest.raises(StateError, match=r"it.db cannot be used: .*[Mm]ove it away"):
        ensure(database, SCHEMA)


def test_a_damaged_database_is_refused(tmp_path):
    database = tmp_path / "it.db"
    execute(database, "CREATE TABLE things (name)", "INSERT INTO things VALUES ('x')")
    content = bytearray(database.read_bytes())
    content[100:4096] = b"\xff" * 3996  # the first page holds the names of the tables
    database.write_bytes(content)
    with pytest.raises(StateError, match="malformed. Move it away"):
        ensure(database, SCHEMA)


def test_a_locked_database_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(databases, "PATIENCE", 0.01)
    database = tmp_path / "it.db"
    ensure(database, SCHEMA)
    with contextlib.closing(sqlite3.connect(database)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="locked. Another program holds it"):
            ensure(database, SCHEMA)
