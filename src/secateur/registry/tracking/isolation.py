"""MLflow's errors in the words of their cause, and its settings for as long as it is in use.

Nothing of the process that calls is changed: a run of the user's own, its tracking address, MLflow's variables and log levels are
afterwards as they were.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own defaults wait four minutes for a server that is down, and print. What the user has set stands."""


class TrackingError(Exception):
    """What MLflow or its database says, in the words of its cause."""


def patient() -> contextlib.AbstractContextManager[None]:
    """MLflow gives up on a server in seconds."""
    return _variables({name: value for name, value in _PATIENCE.items() if name not in os.environ})


def once() -> contextlib.AbstractContextManager[None]:
    """MLflow repeats no request: where only the answer was lost, repeating a creation makes a second one, which nobody knows of."""
    return _variables({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """MLflow's errors as TrackingError; and it is kept from telling of each migration and each model."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(str(getattr(error, "orig", None) or error)) from error
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def as_default(uri: str) -> Iterator[None]:
    """MLflow's embedded registry looks a logged model up at the process's own address, whatever its client was told."""
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    with _variables({"MLFLOW_TRACKING_URI": uri}), _use_tracking_uri(uri):
        yield


def make_database(file: Path) -> None:
    """Run MLflow's migrations on a new file. It syncs to disk after each of them, which only a file in its place needs.

    Raises TrackingError.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    def hurry(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    try:
        with translated():
            store = SqlAlchemyStore(f"sqlite:///{file.resolve()}", (file.parent / "artifacts").resolve().as_uri())
        store.engine.dispose()
    finally:
        event.remove(Engine, "connect", hurry)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
