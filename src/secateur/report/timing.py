"""Where the time of a run went."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.formatting import duration
from secateur.records import RunRecord

NAMES = {
    "check": "checks, saliency, calibration, dense model",
    "search": "search",
    "recover": "recovery of the finalists",
    "gate": "gate: selection and test data",
    "check.sparse_training": "sparse training",
    "search.rungs": "choosing finalists after a little training",
    "recover.refitting": "cutting and refitting",
    "recover.training": "fine-tuning",
    "recover.export": "export to ONNX",
    "recover.quantizing": "quantizing to int8",
    "recover.measuring": "scoring and measuring",
    "recover.waiting": "waiting for a quiet machine",
}


@dataclass(frozen=True)
class Spent:
    """Time of a stage or of a part of one. share: of the whole run. part: it lies inside the stage above it."""

    what: str
    time: str
    share: float
    part: bool = False


def spent(record: RunRecord) -> list[Spent]:
    """Seconds per stage; parts (keys `stage.part`) stand under their stage, with what none of them accounts for."""
    stages = {key: seconds for key, seconds in record.seconds.items() if "." not in key}
    total = sum(stages.values()) or 1.0
    rows = []
    for stage, seconds in stages.items():
        rows.append(Spent(NAMES.get(stage, stage), duration(seconds), seconds / total))
        parts = {key: inside for key, inside in record.seconds.items() if key.startswith(f"{stage}.")}
        if parts:
            parts["the rest"] = max(0.0, seconds - sum(parts.values()))
        for key, inside in parts.items():
            name = NAMES.get(key, key.removeprefix(f"{stage}.").replace("_", " "))
            rows.append(Spent(name, duration(inside), inside / total, part=True))
    return [*rows, Spent("all stages", duration(sum(stages.values())), 1.0)] if rows else []
