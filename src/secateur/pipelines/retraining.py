"""A nightly run: new weights, the choice that serves tried on them, and a search only where that is not good enough."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.definition import Override, PipelineDefinition, load_pipeline
from secateur.errors import DefinitionError, GateFailed, NothingBetter
from secateur.pipelines.evaluating import check_live
from secateur.pipelines.listener import Listener
from secateur.pipelines.nights import Night, nights_folder, open_night, weights_of
from secateur.pipelines.outcome import Outcome
from secateur.pipelines.preparation import check_device, prepare
from secateur.pipelines.replaying import Replaying, precedent_of
from secateur.pipelines.run import check_training_device, drive, identity_of
from secateur.pipelines.state import RunFolder, held, locked, open_run, open_state, read_run
from secateur.registry import Target, server_named

RESERVE = 1.2
"""Times the seconds that recovery and gate took in the precedent's run: left of a deadline when a search ends."""


@dataclass(frozen=True)
class Retraining:
    """What to do. pipeline: as the user called it. key: None for the latest unfinished night, or a new one.

    seconds: until the deadline, None for none. device: that finalists are trained on.
    """

    pipeline: str
    overrides: Sequence[Override] = ()
    project: Path | None = None
    key: str | None = None
    seconds: float | None = None
    device: str = "cpu"


def retrain(wanted: Retraining, listener: Listener) -> dict[str, Any]:
    """Do it, go on with it, or say again how it ended. Returns what the last line of `secateur retrain` holds.

    Raises what `secateur.pipelines.run.run_pipeline` raises, and StateError where another retraining of this pipeline is going on.
    """
    started = time.monotonic()
    definition, root = load_pipeline(wanted.pipeline, list(wanted.overrides), wanted.project)
    check_training_device(wanted.device)
    check_live(definition)
    if definition.search.warm_start is not None:
        raise DefinitionError(
            f"{definition.search.where('warm_start')}: a retraining starts from the front of the network that serves. Leave "
            "'warm_start' out."
        )
    open_state(root)
    with held(nights_folder(root, definition.name) / "lock", f"The retraining of '{definition.name}'"):
        night = open_night(root, definition.name, wanted.key)
        if (result := night.read("result")) is not None:
            return dict(result)
        uri = server_named(None)
        if definition.register_as is not None:
            uri = Target.of(definition.as_written()["register"]).tracking_uri
        listener.stage("check")
        path, source = weights_of(night, definition.retrain, root, uri)
        overrides = list(wanted.overrides)
        if path is not None:
            overrides.append(Override.of(f"workload.{definition.retrain.option}", path))
            definition, _ = load_pipeline(wanted.pipeline, overrides, wanted.project)
        ends = None if wanted.seconds is None else started + wanted.seconds
        outcome, none = _run(night, definition, root, wanted, source, ends, listener)
        result = _result(night, outcome, none, source) | {"seconds": round(time.monotonic() - started, 1)}
        night.keep("result", result)
        return result


def _run(
    night: Night,
    definition: PipelineDefinition,
    root: Path,
    wanted: Retraining,
    source: str,
    ends: float | None,
    listener: Listener,
) -> tuple[Outcome, str | None]:
    """The night's run, and why it had no precedent, if it had none."""
    begun, run = night.read("run"), None
    if begun is not None and (root / begun["folder"]).is_dir():  # a run can be deleted
        kept, _ = load_pipeline(str(root / begun["folder"] / "definition.yaml"), project=root)
        if _asked(kept) == _asked(definition):  # else somebody has corrected it since
            run, definition = read_run(root / begun["folder"]), kept
    groups = run.groups if run is not None else None
    with closing(prepare(definition, root, groups=groups, lasting=True, step=listener.step)) as prepared:
        check_device(prepared)
        identity = identity_of(prepared)
        # Another identity: the weights were replaced, or the device was, and what was done is of others.
        if run is None or run.identity != identity:
            precedent = precedent_of(definition, root)
            origin = {"run_key": night.key, "weights": source}
            run = open_run(root, definition, wanted.pipeline, identity, fresh=True, origin=origin)
            if not isinstance(precedent, str):
                Replaying(run).begin(precedent, definition.retrain.moved)
            begun = {
                "folder": str(run.path.relative_to(root)),
                "none": precedent if isinstance(precedent, str) else None,
            }
            night.keep("run", begun)
        with locked(run):
            return drive(prepared, run, wanted.device, listener, _search_ends(run, ends)), begun["none"]


def _asked(definition: PipelineDefinition) -> dict[str, Any]:
    """What decides whether a run goes on; not how it came to its weights."""
    return {key: value for key, value in definition.as_written().items() if key != "retrain"}


def _search_ends(run: RunFolder, ends: float | None) -> float | None:
    """When a search must be over, so that what follows it fits before the deadline."""
    replay = Replaying(run).replay
    if ends is None or replay is None:
        return ends
    seconds = replay.precedent.seconds
    return ends - RESERVE * (seconds.get("recover", 0.0) + seconds.get("gate", 0.0))


def _result(night: Night, outcome: Outcome, none: str | None, source: str) -> dict[str, Any]:
    record, code = outcome.record, 0
    message = None
    try:
        outcome.require_better()
    except (NothingBetter, GateFailed) as error:
        code, message = error.exit_code, str(error)
    if code == 0 and record.knee is None:
        code = NothingBetter.exit_code
        message = f"Test data refuse every finalist that has passed the gate. The report says why: {outcome.report}"
    replay = record.replay
    replayed = replay is not None and replay.refused is None
    promoted = any(record.comparison and record.comparison.alias in v.aliases for v in outcome.versions or ())
    return {
        "status": {3: "nothing_better", 4: "gate_failed"}.get(code, "promoted" if promoted else "passed"),
        "exit_code": code,
        "run_key": night.key,
        "weights": source,
        "way": "replay" if replayed else "search",
        "why": record.ended if replayed else none if replay is None else replay.refused,
        "profile_moved": None if replay is None else replay.moved,
        **outcome.plain(),
        "message": message,
    }
