"""SQLite files that a foreign library fills: made aside and moved into place, so that a kill never leaves a half-made one.

MLflow runs some sixty migrations on an empty file, and one that was killed among them is refused at every later start.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from secateur.errors import StateError
from secateur.files import disk_errors

_SIDECARS = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a database. It would apply a left-over journal to whatever file takes the database's name."""

PATIENCE = 10.0
"""Seconds to wait for another program that writes."""


@dataclass(frozen=True)
class Schema:
    """How a library's finished database is told from a half-made one.

    complete: tables that each hold a row as soon as the database is made. contents: tables whose rows are worth keeping.
    make: fills the file at a path and closes it.
    """

    library: str
    complete: tuple[str, ...]
    contents: tuple[str, ...]
    make: Callable[[Path], None]


def ensure(database: Path, schema: Schema) -> None:
    """Make the database where there is none. A half-made one, which holds nothing, is moved aside and made anew.

    Raises StateError where the file is locked, damaged or something else's, or where the disk does not take it.
    """
    if _look(database, schema) == "whole":
        return
    with disk_errors(database), _lock(database):
        state = _look(database, schema)  # another process may have made it meanwhile
        if state == "whole":
            return
        if state == "half-made":
            aside = database.with_name(f"{database.name}.broken-{datetime.now():%Y%m%d-%H%M%S}")
            _move(database, aside)
            logging.getLogger("secateur").warning(
                "%s was half-made (a run was stopped while %s created it) and is empty; it is now %s, and a new one is made.",
                database, schema.library, aside.name,
            )  # fmt: skip
        for leftover in database.parent.glob(f".{database.name}.*.part*"):
            leftover.unlink()
        unfinished = database.with_name(f".{database.name}.{os.getpid()}.part")
        schema.make(unfinished)
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        for suffix in _SIDECARS:
            Path(f"{database}{suffix}").unlink(missing_ok=True)
        unfinished.replace(database)


def _look(database: Path, schema: Schema) -> Literal["missing", "half-made", "whole"]:
    if not database.exists():
        return "missing"
    with sqlite_errors(database), contextlib.closing(connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return "missing"

        def filled(table: str) -> bool:
            # The names are ours: a schema's own tables.
            return table in tables and connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None  # noqa: S608

        if all(map(filled, schema.complete)) or any(map(filled, schema.contents)):
            return "whole"
        if not tables & {*schema.complete, *schema.contents}:
            raise StateError(
                f"{database} is not a database of {schema.library}: it holds {', '.join(sorted(tables)[:3])}. Move it away; a new "
                "one is made at the next start."
            )
        return "half-made"


def connect(database: Path) -> sqlite3.Connection:
    """Open a database that exists."""
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)


@contextlib.contextmanager
def sqlite_errors(database: Path) -> Iterator[None]:
    """Turn what SQLite says of a database into a StateError that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF  # without what SQLite adds to tell variants apart
        busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        damaged = code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        remedy = (
            "Another program holds it: wait for it, or end it, and run the same command again."
            if busy
            else "Move it away; a new one is made at the next start."
            if damaged
            else "Correct its permissions, or move it away, and run the same command again."
        )
        raise StateError(f"{database} cannot be used: {error}. {remedy}") from error


@contextlib.contextmanager
def _lock(database: Path) -> Iterator[None]:
    """One process at a time. The lock dies with the process."""
    with database.with_name(f".{database.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _move(database: Path, aside: Path) -> None:
    """Rename a database with what SQLite needs to open it under its new name."""
    for suffix in _SIDECARS:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{suffix}").rename(f"{aside}{suffix}")
    database.rename(aside)
