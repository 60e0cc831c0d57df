"""What the Optuna dashboard shows of a study beside its trials, written in the form that it reads.

Optuna takes nothing more for a trial that is finished, and what follows a search (fine-tuning, registration) comes after that. The
dashboard keeps notes, artifacts and figures in *system attributes of the study*, keyed by trial, and these stay open. The keys
are those of optuna-dashboard 0.21, which must read them as long as it opens old studies. They are written here and not by its own
functions: those want a running trial and the extra `dashboard`, and a study is complete whether or not that was installed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from secateur.files import write

ARTIFACTS = "study_artifacts"
"""The folder beside the database that the dashboard is given as its artifact store."""
_LATER = "secateur:later:"
_CHUNK = 2045
"""Characters per attribute, as the dashboard splits long texts: what the narrowest of Optuna's databases takes."""
_TYPES = {".csv": "text/csv", ".html": "text/html", ".onnx": "application/octet-stream"}

Attribute = str | float | int | bool


class Board:
    """One study's notes, artifacts and figures. Everything may be done twice: the second time changes nothing."""

    def __init__(self, storage: BaseStorage, name: str, artifacts: Path) -> None:
        """The study must exist. artifacts: the dashboard's artifact store."""
        self._storage, self._name, self._artifacts = storage, name, artifacts
        self._study = storage.get_study_id_from_name(name)

    def begin_note(self, trial: int, text: str) -> None:
        """Write the note of a new trial, in Markdown, without looking at the notes of all others first."""
        self._write_note(f"dashboard:{self._id(trial)}:", text, 1)

    def add_note(self, trial: int | None, text: str) -> None:
        """Add Markdown to the note of a trial (None: of the study), below what stands there: a person's words stay."""
        key = "dashboard:" if trial is None else f"dashboard:{self._id(trial)}:"
        attributes = self._storage.get_study_system_attrs(self._study)
        chunks = sum(name.startswith(f"{key}note_str:") for name in attributes)
        body = "".join(attributes[f"{key}note_str:{i}"] for i in range(chunks))
        if text not in body:
            self._write_note(key, f"{body}\n\n{text}" if body else text, attributes.get(f"{key}note_ver", 0) + 1)

    def _write_note(self, key: str, text: str, version: int) -> None:
        self._split(f"{key}note_str:", text)
        self._set(f"{key}note_ver", version)

    def attach(self, trial: int | None, file_name: str, content: bytes) -> None:
        """Put a file among the artifacts of a trial (None: of the study)."""
        key, described = store_artifact(self._artifacts, f"{self._name}/{trial}", file_name, content)
        # Optuna's own place is the trial, which is closed; the dashboard reads this one as well.
        self._set(key if trial is None else f"dashboard:{key.replace(':', f':{self._id(trial)}:')}", described)

    def figure(self, name: str, plotly_json: str) -> None:
        """Show a plotly figure on the study's page. name: letters, digits and hyphens."""
        prefix = f"dashboard:plot_data:{name}:"
        before = sum(key.startswith(prefix) for key in self._storage.get_study_system_attrs(self._study))
        for i in range(self._split(prefix, plotly_json), before):
            self._set(f"{prefix}{i}", "")

    def attribute(self, name: str, value: Attribute) -> None:
        """Set a user attribute of the study."""
        self._storage.set_study_user_attr(self._study, name, value)

    def later(self, trial: int, attributes: Mapping[str, Attribute]) -> None:
        """User attributes of a finished trial, which Optuna refuses: kept with the study, and joined in where it is shown."""
        self._set(f"{_LATER}{trial}", dict(attributes))

    def keep(self, name: str, text: str) -> None:
        """Keep a text with the study that the dashboard does not show."""
        self._set(f"secateur:{name}", text)

    def kept(self, name: str) -> str | None:
        """The text kept under a name, None where there is none."""
        text = self._storage.get_study_system_attrs(self._study).get(f"secateur:{name}")
        return None if text is None else str(text)

    def infeasible(self) -> frozenset[int]:
        """The trials that break a goal."""
        trials = self._storage.get_all_trials(self._study, deepcopy=False)
        return frozenset(t.number for t in trials if any(v > 0 for v in t.constraints.values()))

    def _id(self, trial: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study, trial)

    def _split(self, prefix: str, text: str) -> int:
        chunks = [text[i : i + _CHUNK] for i in range(0, len(text), _CHUNK)]
        for i, chunk in enumerate(chunks):
            self._set(f"{prefix}{i}", chunk)
        return len(chunks)

    def _set(self, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(self._study, key, value)


def store_artifact(folder: Path, owner: str, file_name: str, content: bytes) -> tuple[str, str]:
    """Write a file for the dashboard. Returns the system attribute, key and value, that says so of a study or an open trial.

    owner: tells files of one name apart; the same owner and name replace what was there. Raises StateError on disk trouble.
    """
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{owner}/{file_name}"))
    write(folder / identity, content)
    kind = _TYPES[Path(file_name).suffix]
    return f"artifacts:{identity}", json.dumps(
        {"artifact_id": identity, "filename": file_name, "mimetype": kind, "encoding": None}
    )


def later_attributes(system_attributes: Mapping[str, Any]) -> dict[int, dict[str, Attribute]]:
    """Trial number → what `Board.later` keeps for it. system_attributes: the study's."""
    entries = ((key.removeprefix(_LATER), value) for key, value in system_attributes.items() if key.startswith(_LATER))
    return {int(number): value for number, value in entries}
