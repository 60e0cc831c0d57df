"""How everything was measured, as facts of this run."""

from __future__ import annotations

import io

from ruamel.yaml import YAML

from secateur.formatting import score_with_interval
from secateur.records import SCORE, RunRecord
from secateur.report.device import noise_floor, steadiness


def facts(record: RunRecord) -> dict[str, str]:
    """Device, protocol, data, limits, versions."""
    return {
        "measured on": record.device,
        "latency": "blocks of 10 runs of dense model and candidate in turn, the smallest of each; "
        "each model is opened several times: the mean ratio of the copies, and Student's t over them; ms are the fastest run's",
        "accuracy": f"{record.score_name} of the exported ONNX file on the host, checked against torch for every candidate",
        "batch norms": "recalibrated by difference on calibration data; the uncut network is left exactly as it was",
        **_source(record),
        "layers to refit": "not known" if record.refitted is None else str(record.refitted),
        "data (samples)": ", ".join(f"{role} {count:,}" for role, count in record.samples.items()),
        "constraints": ", ".join(goal.text for goal in record.goals) or "none",
        "during the search": ", ".join(
            f"{g.metric} {g.sense.replace('_', ' ')} {g.limit_in_search:.4g}" for g in record.goals
        )
        or "no limit",
        "the search ended because": record.ended,
        "noise floor": noise_floor(record),
        "the device": steadiness(record),
        "exports instead of rewritten files": str(record.exports),
        **{key.replace("_", " "): value for key, value in record.environment.items()},
    }


def _source(record: RunRecord) -> dict[str, str]:
    """What was cut, where that is not the original."""
    if record.uncut is None:
        return {}
    settings, unit = record.definition["sparse_training"], record.score_unit
    trained = f"the original after {settings['epochs']} epochs with the penalty {settings['penalty']} ({settings['strength']:g})"
    before, after = (score_with_interval(score, unit) for score in (record.dense["search"][SCORE], record.uncut))
    return {"cut from": f"{trained}: {record.score_name} {after} on search data; the original has {before}"}


def definition_text(record: RunRecord) -> str:
    """The definition as YAML."""
    stream = io.StringIO()
    YAML().dump(dict(record.definition), stream)
    return stream.getvalue()
