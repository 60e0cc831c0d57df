"""The study: Optuna behind ask and tell, in SQLite, resumable after a kill at any moment.

Samplers ask in a study in memory; what has been evaluated is written to SQLite, one trial at a time, with its whole evaluation.
That study is the record of the search, and the memory is filled from it at a start. So asking costs no transaction (Optuna's own
`ask` needs one per dimension), and a kill loses nothing but what was being evaluated.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import TypeAdapter

from secateur.records import Arm, Candidate, Direction, Evaluation, Measurement, Trial, earlier
from secateur.search.board import ARTIFACTS, Board, store_artifact
from secateur.search.dashboard import Original, group_table, trial_attributes, trial_note
from secateur.search.samplers import SAMPLERS
from secateur.search.storage import open_storage
from secateur.search_spaces import Parameter, SearchSpace

_EVALUATION: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)
_STORED = "secateur:evaluation"
"""The system attribute with the whole evaluation: a user attribute would fill the dashboard's tables with it."""
_PLANNED = "secateur:planned"
"""The one with what a planned trial was meant to be."""
_VIOLATIONS = "secateur:violations"
"""The one with the constraints by name; Optuna's own, which the dashboard reads, is a list."""


@dataclass(frozen=True)
class Proposal:
    """A candidate that is to be evaluated, and where it comes from: arm, label, method and fraction as a `Trial` has them."""

    candidate: Candidate
    arm: Arm = "sampler"
    label: str = ""
    method: str | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Pending:
    """A trial that waits for its evaluation.

    values: of the sampler's parameters, by which Optuna learns from it and shows it. token: its number in the sampler's memory,
    None where that sampler was not asked.
    """

    proposal: Proposal
    values: Mapping[str, float | str]
    token: int | None = None


@dataclass(frozen=True)
class Subject:
    """What a study is about: what may be chosen, what is wanted, and the dense model's figures, beside which trials are shown."""

    space: SearchSpace
    objectives: Mapping[str, Direction]
    dense: Mapping[str, Measurement]


class Study:
    """One search's storage. Only the driver touches it. board: what is kept beside the trials."""

    def __init__(self, database: Path, name: str, subject: Subject, sampler: str, seed: int) -> None:
        """Opens or creates the study. Raises StateError where it cannot be written."""
        self.name = name
        self._space, self._original = subject.space, Original.of(subject.space, subject.dense)
        self._artifacts = database.parent / ARTIFACTS
        self.objectives = dict(subject.objectives)
        self._distributions = {parameter.name: _distribution(parameter) for parameter in subject.space.parameters()}
        directions = list(self.objectives.values())
        storage = open_storage(database)
        self._study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        self.board = Board(storage, name, self._artifacts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(self.objectives))
        self._finish_what_was_begun()
        stored = self._study.get_trials(deepcopy=False)
        self._stored = len(stored)
        # A restarted sampler with the same seed would repeat its first asks: continue the sequence instead.
        self._memory = optuna.create_study(
            directions=directions, sampler=SAMPLERS[sampler].make((seed + len(stored)) % 2**32)
        )
        self._memory.add_trials([_remembered(trial) for trial in stored])
        self._pending: dict[int, optuna.trial.Trial] = {}

    def _finish_what_was_begun(self) -> None:
        """A trial is written with its evaluation and then told: a kill between the two leaves it running."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._finish(_trial_of(trial), trial.system_attrs[_VIOLATIONS])

    def ask(self, planned: Proposal | None = None) -> Pending:
        """A trial of a planned candidate, which the sampler then knows to be under way; without one the sampler's next."""
        if planned is not None:
            self._memory.enqueue_trial(self._space.values(planned.candidate))
        trial = self._memory.ask(self._distributions)
        self._pending[trial.number] = trial
        return Pending(planned or Proposal(self._space.candidate(trial.params)), trial.params, trial.number)

    def tell(
        self, pending: Pending, evaluation: Evaluation, constraints: Mapping[str, float], same_as: int | None = None
    ) -> Trial:
        """Store an evaluation. constraints: name → violation, ≤ 0 is feasible. same_as: an earlier trial of the same network."""
        asked_trial, origin = None if pending.token is None else self._pending.pop(pending.token), pending.proposal
        trial = Trial(self._stored, origin.arm, origin.label, evaluation, same_as, origin.method, origin.fraction)
        # Samplers keep notes of their own (NSGA-II its generations): without them a restarted one would begin anew.
        notes = dict(self._memory.get_trials(deepcopy=False)[asked_trial.number].system_attrs) if asked_trial else {}
        if constraints:
            notes["constraints"] = [*constraints.values()]  # Optuna's first format: samplers and dashboard both read it
        notes |= {_STORED: _EVALUATION.dump_json(evaluation).decode(), _VIOLATIONS: dict(constraints)}
        notes[_PLANNED] = {"method": origin.method, "fraction": origin.fraction}
        table = group_table(evaluation.candidate, self._original.widths).encode()
        key, notes[key] = store_artifact(self._artifacts, f"{self.name}/{trial.number}", "groups.csv", table)
        written = create_trial(
            state=TrialState.RUNNING,
            params=dict(pending.values),
            distributions=self._distributions,
            user_attrs=trial_attributes(trial, constraints, self._original, [*self.objectives]),
            system_attrs=notes,
        )
        # The dashboard's timeline shows when it was worked on, in local time as Optuna has it.
        written.datetime_start = datetime.now() - timedelta(seconds=evaluation.seconds if same_as is None else 0.0)
        self._study.add_trial(written)
        self._stored += 1
        self._finish(trial, constraints)
        state, values = self._result(evaluation)
        if asked_trial is None:
            self._memory.add_trial(_remembered(written, state, values))
        else:
            for name, violation in constraints.items():
                asked_trial.set_constraint(name, violation)
            self._memory.tell(asked_trial, values, state)
        return trial

    def _finish(self, trial: Trial, constraints: Mapping[str, float]) -> None:
        """The note of a trial that is written, and its end."""
        self.board.begin_note(trial.number, trial_note(trial, constraints, self._original))
        state, values = self._result(trial.evaluation)
        self._study.tell(trial.number, values, state)

    def _result(self, evaluation: Evaluation) -> tuple[TrialState, list[float] | None]:
        """What Optuna is told. A candidate that was rejected unseen has no values; its constraints teach the sampler."""
        if evaluation.failure is not None:
            return TrialState.FAIL, None
        if not self.objectives.keys() <= evaluation.measurements.keys():
            return TrialState.PRUNED, None
        return TrialState.COMPLETE, [evaluation.measurements[name].value for name in self.objectives]

    def trials(self) -> list[Trial]:
        """All trials, in order."""
        return [_trial_of(trial) for trial in self._study.get_trials(deepcopy=False)]


def _trial_of(trial: FrozenTrial) -> Trial:
    """A stored trial as ours."""
    attributes, evaluation = trial.user_attrs, _stored(trial)
    planned = trial.system_attrs.get(_PLANNED, {})
    return Trial(trial.number, attributes["arm"], attributes["label"], evaluation, attributes.get("same_as"), **planned)


def _stored(trial: FrozenTrial) -> Evaluation:
    return _EVALUATION.validate_python(earlier.evaluation(json.loads(trial.system_attrs[_STORED])))


def _remembered(
    trial: FrozenTrial, state: TrialState | None = None, values: Sequence[float] | None = None
) -> FrozenTrial:
    """A stored trial as the sampler's memory takes it: without the texts that only people and restarts read."""
    return create_trial(
        state=state or trial.state,
        values=values if state else trial.values,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs={k: v for k, v in trial.system_attrs.items() if not k.startswith(("secateur:", "artifacts:"))},
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.names:
        return CategoricalDistribution(parameter.names)
    return FloatDistribution(parameter.low, parameter.high)
