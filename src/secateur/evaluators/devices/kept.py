"""Measurements that were made before: the same file on the same device in the same way is not measured twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from secateur.agent.latency import VERSION
from secateur.evaluators.devices.report import Report
from secateur.evaluators.devices.work import Work, packed
from secateur.files import write

_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


class Kept:
    """A folder with a file per measurement. Any number of processes may use it."""

    def __init__(self, folder: Path) -> None:
        """folder: made at the first `put`."""
        self._folder = folder

    def get(self, work: Work, fingerprint: str) -> Report | None:
        """The report of an earlier measurement of the same work on such a device, with such a runtime and this protocol."""
        file = self._file(work, fingerprint)
        try:
            return _REPORT.validate_json(file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def put(self, work: Work, fingerprint: str, report: Report) -> None:
        """Keep a report. Raises StateError where the disk does not take it."""
        write(self._file(work, fingerprint), _REPORT.dump_json(report))

    def _file(self, work: Work, fingerprint: str) -> Path:
        about = {
            "candidate": hashlib.sha256(work.candidate).hexdigest(),
            "reference": hashlib.sha256(work.reference).hexdigest(),
            "inputs": hashlib.sha256(packed(work.inputs)).hexdigest(),
            "timing": asdict(
                replace(work.timing, allowance=0.0)
            ),  # waiting changes how long it takes, not what is measured
            "figures": sorted(work.figures),
            "device": fingerprint,
            "protocol": VERSION,
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / key[:2] / f"{key}.json"
