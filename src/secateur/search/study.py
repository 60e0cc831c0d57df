"""The study: Optuna behind ask and tell, in SQLite, resumable after a kill at any moment.

Every trial keeps its whole evaluation, so the study is the record of the search. A driver that was killed leaves its last trial
running; `recover` finishes it where its evaluation had been stored, and otherwise fails it and enqueues the same numbers again.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from pydantic import TypeAdapter
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from secateur.errors import StateError, first_line
from secateur.files import disk_errors
from secateur.records import Arm, Direction, Evaluation, Trial
from secateur.search.samplers import SAMPLERS
from secateur.search_spaces import Parameter

_EVALUATION: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class Asked:
    """A trial that waits for its evaluation."""

    number: int
    values: Mapping[str, float | str]
    arm: Arm
    label: str


class Study:
    """One search's storage. Only the driver touches it. waiting: enqueued trials that have not been asked for."""

    def __init__(
        self,
        database: Path,
        name: str,
        parameters: Sequence[Parameter],
        objectives: Mapping[str, Direction],
        sampler: str,
        seed: int,
    ) -> None:
        """Opens or creates the study. Raises StateError where the database cannot be written."""
        self.name = name
        self.objectives = dict(objectives)
        self._running: dict[int, optuna.trial.Trial] = {}
        self._distributions = {parameter.name: _distribution(parameter) for parameter in parameters}
        self._study = optuna.create_study(
            storage=open_storage(database), study_name=name, directions=list(objectives.values()), load_if_exists=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(objectives))
        trials = self._study.get_trials(deepcopy=False)
        self._labels = {t.user_attrs["label"] for t in trials if "label" in t.user_attrs}
        self.waiting = sum(t.state == TrialState.WAITING for t in trials)
        # A restarted sampler with the same seed would repeat its first asks: continue the sequence instead.
        self._study.sampler = SAMPLERS[sampler].make(seed + len(trials))

    def recover(self) -> int:
        """Deal with trials that a killed driver left running. Returns how many were enqueued again."""
        again = 0
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "evaluation" in trial.user_attrs:
                self._tell(trial.number, _EVALUATION.validate_json(trial.user_attrs["evaluation"]))
                continue
            # What was enqueued, and what had been drawn: a kill in the middle of an ask leaves only some of the numbers.
            values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if values:
                attributes = {k: v for k, v in trial.user_attrs.items() if k in ("arm", "label")}
                self._study.enqueue_trial(values, {**attributes, "retry_of": trial.number})
                self.waiting += 1
                again += 1
            self._study.tell(trial.number, state=TrialState.FAIL)
        return again

    def enqueue(self, values: Mapping[str, float | str], arm: Arm, label: str) -> None:
        """Put a trial before the sampler's own. A label is enqueued once, however often the driver is restarted."""
        if label not in self._labels:
            self._study.enqueue_trial(dict(values), {"arm": arm, "label": label})
            self._labels.add(label)
            self.waiting += 1

    def ask(self) -> Asked:
        """The next trial: an enqueued one, else the sampler's."""
        trial = self._study.ask(self._distributions)
        self.waiting = max(0, self.waiting - 1)
        self._running[trial.number] = trial
        attributes = trial.user_attrs
        return Asked(trial.number, trial.params, attributes.get("arm", "sampler"), attributes.get("label", ""))

    def tell(
        self, asked: Asked, evaluation: Evaluation, constraints: Mapping[str, float], same_as: int | None = None
    ) -> None:
        """Store an evaluation. constraints: name → violation, ≤ 0 is feasible. same_as: an earlier trial with equal cuts."""
        trial = self._running.pop(asked.number)
        for name, violation in constraints.items():
            trial.set_constraint(name, violation)
        if same_as is not None:
            trial.set_user_attr("same_as", same_as)
        for name, measurement in evaluation.measurements.items():
            if name not in self.objectives:
                trial.set_user_attr(name, measurement.value)
        trial.set_user_attr("evaluation", _EVALUATION.dump_json(evaluation).decode())
        self._tell(asked.number, evaluation)

    def _tell(self, number: int, evaluation: Evaluation) -> None:
        if evaluation.failure is not None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, [evaluation.measurements[name].value for name in self.objectives])

    def trials(self) -> list[Trial]:
        """All trials with an evaluation, in order."""
        return [
            Trial(
                t.number,
                t.user_attrs.get("arm", "sampler"),
                t.user_attrs.get("label", ""),
                _EVALUATION.validate_json(t.user_attrs["evaluation"]),
                t.user_attrs.get("same_as"),
            )
            for t in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
            if "evaluation" in t.user_attrs
        ]

    def attach(self, file: Path, store: Path) -> None:
        """Attach a file to the study, where the Optuna dashboard shows it. store: the dashboard's `--artifact-dir`."""
        with disk_errors(store / file.name):
            store.mkdir(parents=True, exist_ok=True)
            upload_artifact(
                artifact_store=FileSystemArtifactStore(store), file_path=str(file), study_or_trial=self._study
            )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.names:
        return CategoricalDistribution(parameter.names)
    return FloatDistribution(parameter.low, parameter.high)


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
    """SQLite with a write-ahead log, shared with the dashboard. Raises StateError where it cannot be written."""
    with storage_errors(database):
        storage = RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}})

    # A listener on this engine alone: MLflow's own databases are none of our business.
    @event.listens_for(storage.engine, "connect")
    def _write_ahead(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # connections opened before the listener came
    return storage
