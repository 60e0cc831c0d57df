"""A run as a Python object: its figures, its front, its models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from secateur.api.tables import finalists_table, html_table, trials_table
from secateur.compression.storage import load_compressed
from secateur.definition import one_of
from secateur.errors import NothingBetter
from secateur.pipelines.models import dense_module, export_finalist, onnx_file
from secateur.pipelines.reading import read_record, versions_of
from secateur.pipelines.state import RunFolder, find_run
from secateur.records import Recovered, RunRecord, Version
from secateur.report.front_figure import AXES, front_figure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Run:
    """A run of a project, finished or not. What needs its record raises StateError until the gate has judged.

    folder: where it lies, and with what it was started. build_dense: builds the dense module; by default the workload's factory
    does.
    """

    folder: RunFolder
    build_dense: Callable[[], nn.Module] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"<Run {self.id} in {self.path}{'' if self.finished else ', unfinished'}>"

    @property
    def id(self) -> str:
        """As `secateur show ID` takes it."""
        return self.folder.run_id

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do. Go on with an unfinished one by the call that started it."""
        return self.folder.done

    @cached_property
    def record(self) -> RunRecord:
        """Everything that the run found out."""
        return read_record(self.folder)

    @property
    def report(self) -> Path:
        """The page to look at: one HTML file."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What the run has logged."""
        return self.folder.log

    @property
    def versions(self) -> list[Version]:
        """What was registered in MLflow."""
        return versions_of(self.folder) or []

    @property
    def finalists(self) -> list[Recovered]:
        """All networks that were fine-tuned, those that failed or missed a goal included."""
        return list(self.record.finalists)

    @property
    def front(self) -> list[Recovered]:
        """The finalists that passed the gate: every goal is met, and no other one is better in everything."""
        return self.record.registered

    @property
    def best(self) -> Recovered | None:
        """The knee of the front, which gets the alias; None where nothing passed the gate."""
        return next((f for f in self.front if f.name == self.record.knee), None)

    def to_frame(self, *, trials: bool = False) -> pd.DataFrame:
        """The dense model and the finalists, or all trials of the search: a row each, indexed by name or number.

        Figures of finalists are those on selection data, with `_low` and `_high` of their 95 % intervals where there are any.
        """
        import pandas as pd  # slow to import

        rows, index = trials_table(self.record) if trials else finalists_table(self.record)
        return pd.DataFrame(rows).set_index(index)

    def plot(self, cost: str | None = None) -> Any:
        """The front as a plotly figure, score against a cost: `latency`, `size`, `download`, `macs`, `parameters` or `nonzero`."""
        record = self.record
        costs = [axis for axis in AXES if axis in record.dense["search"] and axis in record.objectives] or ["size"]
        return front_figure(record, one_of(cost or costs[0], AXES, "plot", "cost"))

    def module(self, name: str | None = None, *, dense: nn.Module | None = None) -> nn.Module:
        """A finalist as a torch module, float32, on the CPU, in evaluation mode. name: by default the best one's.

        Torch runs no int8 model: of one, this is the float32 twin that it was made of.

        dense: the dense module, where the workload's factory cannot build it. Raises NothingBetter, DefinitionError for an unknown
        name, WorkloadError.
        """
        return load_compressed(self.path / self._named(name).compressed, dense or self.dense())

    def onnx(self, name: str | None = None) -> Path:
        """A finalist's ONNX file. name: by default the best one's."""
        return onnx_file(self.folder, self._named(name))

    def export(self, to: str | Path, name: str | None = None, *, dense: nn.Module | None = None) -> list[Path]:
        """Write a finalist so that it can be used without secateur, as `secateur export` does. Returns the files."""
        finalist = self._named(name)
        verdict = self.record.verdicts.get(finalist.name)
        test = verdict.test if verdict else None
        return export_finalist(self.folder, finalist, test, dense or self.dense(), Path(to).expanduser())

    def dense(self) -> nn.Module:
        """The original module. Raises WorkloadError where it cannot be built."""
        if self.build_dense is not None:
            return self.build_dense()
        return dense_module(self.folder)

    def _named(self, name: str | None) -> Recovered:
        if name is None:
            if self.best is None:
                raise NothingBetter(
                    f"Nothing passed the gate in run {self.id}; name one of: {', '.join(self._names())}."
                )
            return self.best
        one_of(name, self._names(), f"run {self.id}", "finalist")
        return next(f for f in self.finalists if f.name == name)

    def _names(self) -> Sequence[str]:
        return [finalist.name for finalist in self.record.finalists]

    def _repr_html_(self) -> str:
        """The before-and-after table, for a notebook."""
        return html_table(self.record) if self.folder.judged else f"<p>run {self.id}, unfinished</p>"


def open_run(run_id: str | None = None, *, project: str | Path = ".") -> Run:
    """A run of a project by its id, or the latest one. Raises DefinitionError where there is none."""
    return Run(find_run(Path(project).expanduser().resolve(), run_id))
