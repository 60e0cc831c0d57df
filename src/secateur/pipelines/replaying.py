"""The choice that serves, tried on new weights before anything is searched.

replay.json   of a run: the precedent, and why it was refused, if it was
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from secateur.definition import PipelineDefinition
from secateur.errors import StateError
from secateur.files import write
from secateur.formatting import outcome
from secateur.pipelines.reading import front_of, read_record, record_of_version
from secateur.pipelines.recording import Judged
from secateur.pipelines.state import STATE, RunFolder, runs
from secateur.records import Comparison, Precedent, Replay, RunRecord, Trial
from secateur.registry import DATABASE, Target, registry
from secateur.search.executor import Executor
from secateur.search.ledger import Ledger
from secateur.search.loop import Stopping
from secateur.search.replay import profile_moved
from secateur.search.replay import replay as evaluate

_REPLAY: TypeAdapter[Replay] = TypeAdapter(Replay)


def precedent_of(definition: PipelineDefinition, root: Path) -> Precedent | str:
    """The choice that serves now, or why there is none to be tried.

    Where the definition registers nothing, it is the knee of the latest finished run of this name. Raises RegistryUnreachable and
    StateError where the registry cannot be asked.
    """
    state, register = root / STATE, definition.register_as
    if register is None:
        for run in (run for run in reversed(runs(state)) if run.done):
            try:
                last = read_record(run)
            except StateError as error:
                logging.getLogger("secateur").warning("%s", error)
                continue
            if last.name == definition.name and last.knee is not None:
                return _precedent(last, last.knee, f"the knee of run {run.run_id}")
        return f"no earlier run of '{definition.name}' has found a network"
    target = Target.of(definition.as_written()["register"])
    alias = register.gate.against if register.gate is not None else register.alias
    none = f"no version of '{target.name}' is @{alias} yet"
    if target.tracking_uri is None and not (state / DATABASE).is_file():
        return none
    with TemporaryDirectory() as folder, registry(state, target.tracking_uri) as server:
        version = server.version(target.name, f"@{alias}")
        if version is None:
            return none
        named = f"version {version.number} (@{alias}) of '{target.name}'"
        try:
            record = record_of_version(server, version, Path(folder))
        except StateError as error:
            return f"what {named} was made by cannot be read: {error}"
        if record is None:
            return f"{named} was not made by secateur, or its run is gone"
        return _precedent(record, version.tags.get("secateur.finalist", ""), named)


def _precedent(record: RunRecord, finalist: str, of: str) -> Precedent | str:
    """A finalist's choice, with what its search knew; of a run that was a replay, what the search before it knew."""
    candidate = next((f.candidate for f in record.finalists if f.name == finalist), None)
    if candidate is None:  # a version that somebody has registered by hand
        return f"{of} does not say which finalist of run {record.run_id} it is"
    if not candidate.edits:
        return f"{of} is the original network, in int8"
    earlier = record.replay
    if earlier is not None and earlier.refused is None:
        return replace(earlier.precedent, of=of, run=record.run_id, finalist=finalist, candidate=candidate)
    seconds = {stage: record.seconds.get(stage, 0.0) for stage in ("search", "recover", "gate")}
    return Precedent(
        of,
        record.run_id,
        finalist,
        candidate,
        record.run_id,
        tuple(front_of(record)),
        record.sensitivities,
        seconds,
    )


class Replaying:
    """The replay of one run, kept in its folder."""

    def __init__(self, run: RunFolder) -> None:
        """Reads what the folder holds."""
        self._file = run.path / "replay.json"
        self.replay: Replay | None = None
        if self._file.is_file():
            self.replay = _REPLAY.validate_json(self._file.read_bytes())

    def begin(self, precedent: Precedent, threshold: float) -> None:
        """A run is to try a precedent first."""
        self._keep(Replay(precedent, None, threshold))

    @property
    def wanted(self) -> bool:
        """Whether there is a precedent that nothing has refused yet."""
        return self.replay is not None and self.replay.refused is None

    @property
    def _begun(self) -> Replay:
        assert self.replay is not None  # noqa: S101 # whoever calls has asked whether it is wanted
        return self.replay

    def engine(self, ledger: Ledger, executor: Executor, _stopping: Stopping) -> str:
        """In the place of a search: measure the profile, and the choice where it still fits. Returns how that ended."""
        precedent = self._begun.precedent
        missing = sorted(precedent.candidate.edits.keys() - ledger.problem.space.choices.keys())
        if missing:
            return self.refuse(f"the network has no group {', '.join(missing)} any more, or it may not be cut")
        moved = profile_moved(ledger, executor, precedent)
        self._keep(replace(self._begun, moved=moved))
        if moved is not None and moved > self._begun.threshold:
            return self.refuse(
                f"the sensitivity profile has moved by {moved:.2f} since run {precedent.searched_in}, more than "
                f"{self._begun.threshold:.2f}"
            )
        evaluate(ledger, executor, precedent)
        profile = "could not be compared" if moved is None else f"moved by {moved:.2f}"
        return f"the choice of {precedent.of} was replayed: the sensitivity profile {profile}"

    def refuse(self, reason: str) -> str:
        """The precedent is not taken. Returns the reason."""
        self._keep(replace(self._begun, refused=reason))
        return reason

    def _keep(self, replay: Replay) -> None:
        self.replay = replay
        write(self._file, _REPLAY.dump_json(replay))


def shortcoming(trials: Sequence[Trial], judged: Judged, comparison: Comparison | None) -> str | None:
    """Why what a replay has led to is not good enough, or None."""
    if judged.best is None:
        failures = [t.evaluation.failure for t in trials] + [f.failure for f in judged.finalists]
        for failure in filter(None, failures):
            return f"the choice that serves has failed on the new weights: {failure}"
        return "the choice that serves does not keep the constraints on the new weights"
    if comparison is not None and not comparison.passed:
        return f"the choice that serves fails the gate on the new weights: {outcome(comparison)}"
    return None
