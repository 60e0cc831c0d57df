"""The embedded database: MLflow's SQLite in the project's state folder, artifacts beside it. It moves with its project.

MLflow keeps the absolute address of every artifact folder; relative ones it resolves against whatever folder a reader happens to
be in. So the addresses are compared with where the database lies whenever we open it, and rewritten after a move.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from secateur.databases import Schema, connect, ensure, sqlite_errors
from secateur.registry.tracking import make_database

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"

_SCHEMA = Schema("MLflow", ("alembic_version", "experiments"), ("runs", "registered_models"), make_database)
_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def open_embedded(state: Path) -> str:
    """The tracking address of a project's database, made where there is none, corrected where the project was moved.

    Raises StateError where it cannot be used.
    """
    database = state / DATABASE
    ensure(database, _SCHEMA)
    for before in relocate(state):
        logging.getLogger("secateur").warning(
            "The project was moved from %s: MLflow's addresses follow.", before.parent
        )
    return f"sqlite:///{database.resolve()}"


def relocate(state: Path) -> list[Path]:
    """Rewrite the addresses of artifacts that were below this state folder where it used to lie.

    Returns the former places of the state folder, none where nothing was moved. Raises StateError where SQLite cannot.
    """
    database = state / DATABASE
    if not database.is_file():
        return []
    with sqlite_errors(database), contextlib.closing(connect(database)) as connection, connection:
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not known >= _ADDRESSES.keys():
            return []
        moved = {
            root: place for root, place in _roots(connection).items() if _is_former(root, place, state, connection)
        }
        for root in moved:
            here = state.resolve().as_uri() if root.startswith("file:") else str(state.resolve())
            for table, columns in _ADDRESSES.items():
                for column in columns:
                    connection.execute(
                        # The names are those above.
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                        (here, len(root) + 1, len(root) + 1, f"{root}/"),
                    )
    return sorted(set(moved.values()))


def _roots(connection: sqlite3.Connection) -> dict[str, Path]:
    """State folders that experiments lie in: as they are written in the database, and as paths."""
    roots = {}
    for (location,) in connection.execute(
        "SELECT artifact_location FROM experiments WHERE artifact_location IS NOT NULL"
    ):
        root, separator, rest = location.rpartition(f"/{ARTIFACTS}")
        if separator and (rest == "" or rest.lstrip("/").isdigit()) and urlsplit(root).scheme in ("", "file"):
            roots[root] = Path(unquote(urlsplit(root).path) if root.startswith("file:") else root)
    return roots


def _is_former(root: str, place: Path, state: Path, connection: sqlite3.Connection) -> bool:
    """Whether a state folder is this one at another place: of the same name, and what ran there has its files here."""
    if place == state.resolve() or place.name != state.name:
        return False
    begin = f"{root}/{ARTIFACTS}/"
    kept = [
        address.removeprefix(begin).partition("/")[0]
        for (address,) in connection.execute(
            "SELECT artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?", (len(begin), begin)
        )
    ]
    return not kept or any((state / ARTIFACTS / run).is_dir() for run in kept)
