"""Where studies are stored: one SQLite file, opened safely, and what its errors mean."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from secateur.databases import Schema, ensure
from secateur.errors import StateError, first_line


@contextlib.contextmanager
def storage_errors(database: Path) -> Iterator[None]:
    """Turn what SQLite and Optuna say of a full or unwritable disk into a StateError that says what to do."""
    try:
        yield
    except (OperationalError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        raise StateError(
            f"{database} cannot be used: {first_line(getattr(cause, 'orig', None) or cause)}. Free some space or correct the "
            "permissions, and run the same command again: every finished trial is kept."
        ) from error


def open_storage(database: Path) -> RDBStorage:
    """SQLite with a write-ahead log, shared with the dashboard. Raises StateError where it cannot be used."""
    with storage_errors(database):
        ensure(database, _SCHEMA)
        try:
            storage = RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}})
        except RuntimeError as error:  # made by another version of Optuna
            raise StateError(f"{database} cannot be used: {first_line(error, 500)}") from error

    # A listener on this engine alone: MLflow's own databases are none of our business.
    @event.listens_for(storage.engine, "connect")
    def _write_ahead(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # connections opened before the listener came
    weakref.finalize(storage, storage.engine.dispose)  # those of its pool, which nobody else closes
    return storage


def _make_database(file: Path) -> None:
    storage = RDBStorage(f"sqlite:///{file}")
    storage.remove_session()
    storage.engine.dispose()


_SCHEMA = Schema("Optuna", ("alembic_version", "version_info"), ("studies",), _make_database)
