"""What a run ends with, for the terminal, scripts and callers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secateur.errors import GateFailed, NothingBetter
from secateur.formatting import outcome
from secateur.records import Recovered, RunRecord, Version


@dataclass(frozen=True)
class Outcome:
    """What a run ends with. versions: None where nothing was to be registered."""

    record: RunRecord
    folder: Path
    report: Path
    versions: list[Version] | None

    def require_better(self) -> None:
        """Raises NothingBetter where no finalist keeps the constraints, GateFailed where the best one may not serve."""
        if not self.record.registered:
            raise NothingBetter(
                f"Nothing passed the gate: none of the {len(self.record.finalists)} finalists keeps "
                + ", ".join(goal.text for goal in self.record.goals)
                + f" and is on the front. {self._failures()}The report says what there was: {self.report}"
            )
        comparison = self.record.comparison
        if comparison is not None and not comparison.passed:
            raise GateFailed(f"{outcome(comparison)} The report has every figure: {self.report}")

    def _failures(self) -> str:
        """Why finalists failed, each reason once, with the names of those that it concerns."""
        names: dict[str, list[str]] = {}
        for finalist in self.record.finalists:
            if finalist.failure is not None:
                names.setdefault(finalist.failure, []).append(finalist.name)
        return "".join(f"{', '.join(failed)} failed: {reason.rstrip('.')}. " for reason, failed in names.items())

    def plain(self) -> dict[str, Any]:
        """As JSON takes it: what the run led to, without its trials (`secateur show RUN --json` has them)."""
        record = self.record
        return {
            "run": record.run_id,
            "folder": str(self.folder),
            "report": str(self.report),
            "best": record.knee,
            "gate": None
            if record.comparison is None
            else asdict(record.comparison) | {"passed": record.comparison.passed},
            "finalists": [_plain(record, finalist) for finalist in record.finalists],
            "dense": {name: m.value for name, m in record.dense["selection"].items()},
            "versions": None if self.versions is None else [asdict(version) for version in self.versions],
        }


def _plain(record: RunRecord, finalist: Recovered) -> dict[str, Any]:
    verdict = record.verdicts.get(finalist.name)
    tested = verdict.test if verdict else None
    return {
        "name": finalist.name,
        "precision": finalist.precision,
        "passed": finalist in record.registered,
        "failure": finalist.failure,
        "measurements": {name: m.value for name, m in finalist.measurements.items()},
        "test": tested.value if tested else None,
    }
