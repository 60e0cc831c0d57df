"""What earlier versions have written, as this one reads it: JSON in, JSON out.

- A candidate named every group with a width and a method (`cuts`), and a network was known by its removed channels alone.
- Finalists carried what the gate said of them; a point of sensitivity did not tell parameters from those that are not zero.

What has today's form is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Stored = Mapping[str, Any]


def candidate(stored: Stored) -> dict[str, Any]:
    """A candidate."""
    if "cuts" not in stored:
        return dict(stored)
    cut = {name: cut for name, cut in stored["cuts"].items() if cut["method"] is not None}
    return {"edits": {name: [_edit(cut["method"], cut["kept"])] for name, cut in cut.items()}}


def evaluation(stored: Stored) -> dict[str, Any]:
    """An evaluation."""
    read = {**stored, "candidate": candidate(stored["candidate"])}
    if "removals_key" in read:
        read["plan_key"] = read.pop("removals_key")
        read["rejected"] = (read["stopped"] or "").startswith("rejected unseen")
    return read


def evaluations(stored: list[Stored] | Mapping[str, Stored]) -> list[dict[str, Any]]:
    """What has been evaluated in a rung; formerly by the candidates' keys."""
    return [evaluation(e) for e in (stored.values() if isinstance(stored, Mapping) else stored)]


def sensitivity(stored: Stored) -> dict[str, Any]:
    """A point of a sensitivity curve."""
    read = {"nonzero": stored["parameters"], **stored}
    if "kept" not in stored:
        return read
    width, kept = read.pop("width"), read.pop("kept")
    return {**read, "edit": _edit(read.pop("method"), kept), "removed": 1 - kept / width}


def finalist(stored: Stored) -> dict[str, Any]:
    """What became of a finalist."""
    return {**stored, "candidate": candidate(stored["candidate"])}


def record(stored: Stored) -> dict[str, Any]:
    """The record of a run."""
    read = dict(stored)
    if "verdicts" not in read:
        measured = [f for f in read["finalists"] if f["failure"] is None]
        goals = [goal["text"] for goal in read["goals"]]
        read["verdicts"] = {f["name"]: _verdict(f, goals) for f in measured}
    read["trials"] = [{**t, "evaluation": evaluation(t["evaluation"])} for t in read["trials"]]
    read["finalists"] = [finalist(f) for f in read["finalists"]]
    read["sensitivities"] = [sensitivity(s) for s in read["sensitivities"]]
    if read.get("small_dense") is not None:
        read["small_dense"] = finalist(read["small_dense"])
    return read


def compressed(stored: Stored) -> dict[str, Any]:
    """The description of a compressed model on disk."""
    if stored.get("format") != 1:
        return dict(stored)
    steps = [
        {"layer": layer, "side": side, "indices": indices}
        for side in ("out", "in")
        for layer, indices in stored["removals"][side].items()
    ]
    cuts = {name: {"method": method, "kept": kept} for name, (method, kept) in stored["cuts"].items()}
    kept = {name: stored[name] for name in ("workload", "dense_sha256")}
    return {"format": 2, **kept, "plan": {"steps": steps}, "candidate": candidate({"cuts": cuts})}


def _edit(method: str, width: int) -> dict[str, Any]:
    return {"transform": "channels", "level": width, "by": method}


def _verdict(finalist: Stored, goals: list[str]) -> dict[str, Any]:
    missed = dict(reason.split(": ", 1) for reason in finalist["missed"])
    checks = [{"goal": goal, "missed": missed.get(goal)} for goal in goals]
    return {
        "finalist": finalist["name"],
        "checks": checks,
        **{key: finalist[key] for key in ("on_front", "change", "test", "test_change", "veto")},
    }
