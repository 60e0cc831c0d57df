"""The study: Optuna behind ask and tell, in SQLite, resumable after a kill at any moment.

Samplers ask in a study in memory; what has been evaluated is written to SQLite, one trial at a time, with its whole evaluation.
That study is the record of the search, and the memory is filled from it at a start. So asking costs no transaction (Optuna's own
`ask` needs one per dimension), and a kill loses nothing but what was being evaluated.
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
from optuna.trial import FrozenTrial, TrialState, create_trial
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
    """A trial that waits for its evaluation. token: its number in memory."""

    token: int
    values: Mapping[str, float | str]
    arm: Arm
    label: str


class Study:
    """One search's storage. Only the driver touches it."""

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
        self._distributions = {parameter.name: _distribution(parameter) for parameter in parameters}
        directions = list(objectives.values())
        self._study = optuna.create_study(
            storage=open_storage(database), study_name=name, directions=directions, load_if_exists=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(objectives))
        self._finish_what_was_begun()
        stored = self._study.get_trials(deepcopy=False)
        self._stored = len(stored)
        # A restarted sampler with the same seed would repeat its first asks: continue the sequence instead.
        self._memory = optuna.create_study(directions=directions, sampler=SAMPLERS[sampler].make(seed + len(stored)))
        self._memory.add_trials([_remembered(trial) for trial in stored])
        self._asked: dict[int, optuna.trial.Trial] = {}

    def _finish_what_was_begun(self) -> None:
        """A trial is written with its evaluation and then told: a kill between the two leaves it running."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._finish(trial.number, _EVALUATION.validate_json(trial.user_attrs["evaluation"]))

    def ask(self, values: Mapping[str, float | str] | None = None, arm: Arm = "sampler", label: str = "") -> Asked:
        """A trial with these values, or the sampler's next one."""
        if values is not None:
            self._memory.enqueue_trial(dict(values))
        trial = self._memory.ask(self._distributions)
        self._asked[trial.number] = trial
        return Asked(trial.number, trial.params, arm, label)

    def tell(
        self, asked: Asked, evaluation: Evaluation, constraints: Mapping[str, float], same_as: int | None = None
    ) -> Trial:
        """Store an evaluation. constraints: name → violation, ≤ 0 is feasible. same_as: an earlier trial with equal cuts."""
        asking = self._asked.pop(asked.token, None)
        attributes: dict[str, Any] = {"arm": asked.arm, "label": asked.label}
        if same_as is not None:
            attributes["same_as"] = same_as
        for name, measurement in evaluation.measurements.items():
            if name not in self.objectives:
                attributes[name] = measurement.value
        attributes["evaluation"] = _EVALUATION.dump_json(evaluation).decode()
        # Samplers keep notes of their own (NSGA-II its generations): without them a restarted one would begin anew.
        notes = dict(self._memory.get_trials(deepcopy=False)[asked.token].system_attrs) if asking else {}
        if constraints:
            notes["constraints"] = list(
                constraints.values()
            )  # Optuna's first format: samplers and dashboard both read it
        written = create_trial(
            state=TrialState.RUNNING,
            params=dict(asked.values),
            distributions=self._distributions,
            user_attrs=attributes,
            system_attrs=notes,
        )
        self._study.add_trial(written)
        number, self._stored = self._stored, self._stored + 1
        self._finish(number, evaluation)
        state, values = self._result(evaluation)
        if asking is None:
            self._memory.add_trial(_remembered(written, state, values))
        else:
            for name, violation in constraints.items():
                asking.set_constraint(name, violation)
            self._memory.tell(asking, values, state)
        return Trial(number, asked.arm, asked.label, evaluation, same_as)

    def _finish(self, number: int, evaluation: Evaluation) -> None:
        state, values = self._result(evaluation)
        self._study.tell(number, values, state)

    def _result(self, evaluation: Evaluation) -> tuple[TrialState, list[float] | None]:
        """What Optuna is told. A candidate that was rejected unseen has no values; its constraints teach the sampler."""
        if evaluation.failure is not None:
            return TrialState.FAIL, None
        if not self.objectives.keys() <= evaluation.measurements.keys():
            return TrialState.PRUNED, None
        return TrialState.COMPLETE, [evaluation.measurements[name].value for name in self.objectives]

    def trials(self) -> list[Trial]:
        """All trials, in order."""
        return [
            Trial(
                t.number,
                t.user_attrs["arm"],
                t.user_attrs["label"],
                _EVALUATION.validate_json(t.user_attrs["evaluation"]),
                t.user_attrs.get("same_as"),
            )
            for t in self._study.get_trials(deepcopy=False)
        ]

    def remember(self, name: str, text: str) -> None:
        """Keep a text with the study, under a name."""
        self._study.set_user_attr(name, text)

    def recall(self, name: str) -> str | None:
        """The text kept under a name, None where there is none."""
        return self._study.user_attrs.get(name)

    def attach(self, file: Path, store: Path) -> None:
        """Attach a file to the study, where the Optuna dashboard shows it. store: the dashboard's `--artifact-dir`."""
        with disk_errors(store / file.name):
            store.mkdir(parents=True, exist_ok=True)
            upload_artifact(
                artifact_store=FileSystemArtifactStore(store), file_path=str(file), study_or_trial=self._study
            )


def _remembered(
    trial: FrozenTrial, state: TrialState | None = None, values: Sequence[float] | None = None
) -> FrozenTrial:
    """A stored trial as the sampler's memory takes it: without the texts that only people and restarts read."""
    return create_trial(
        state=state or trial.state,
        values=values if state else trial.values,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
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
