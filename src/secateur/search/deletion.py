"""Delete a study and what belongs to it."""

from __future__ import annotations

import json
from pathlib import Path

import optuna

from secateur.files import disk_errors
from secateur.search.board import ARTIFACTS
from secateur.search.storage import open_storage, storage_errors


def delete_study(database: Path, name: str) -> None:
    """Delete a study and the artifacts of it and of its trials; nothing where there is no such study.

    A kill at any moment leaves a study that can be deleted again. Raises StateError where the disk does not take it.
    """
    if not database.is_file():
        return
    with storage_errors(database), disk_errors(database.parent / ARTIFACTS / "file"):
        storage = open_storage(database)
        try:
            study = storage.get_study_id_from_name(name)
        except KeyError:
            return
        attributes = dict(storage.get_study_system_attrs(study))
        for trial in storage.get_all_trials(study, deepcopy=False):
            attributes |= {f"{trial.number}:{key}": value for key, value in trial.system_attrs.items()}
        for key, value in attributes.items():
            if "artifacts:" in key and "secateur:" not in key:
                (database.parent / ARTIFACTS / json.loads(value)["artifact_id"]).unlink(missing_ok=True)
        optuna.delete_study(study_name=name, storage=storage)
