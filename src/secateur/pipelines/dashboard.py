"""The Optuna dashboard: what a run adds to its study once the search is over, and opening it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from secateur.pipelines.state import DATABASE, STATE, RunFolder
from secateur.records import Measurement, Recovered, RunRecord
from secateur.registry import Published
from secateur.report import headline
from secateur.report.front_figure import AXES, front_figure
from secateur.report.table import status
from secateur.search.board import ARTIFACTS, Board
from secateur.search.dashboard import finalist_note, later_attributes
from secateur.search.dashboard_server import serve
from secateur.search.storage import open_storage

HEIGHT = 450
"""Pixels of the dashboard's frame for a figure."""


def show_finalists(run: RunFolder, record: RunRecord, report: Path) -> None:
    """After the gate: the report, the front as figures, and each finalist's figures and ONNX file on its trial."""
    board = _board(run)
    board.add_note(None, headline(record))
    board.attach(None, report.name, report.read_bytes())
    for axis in (a for a in AXES if a in record.dense["search"] and a in record.objectives):
        figure = front_figure(record, axis)
        figure.update_layout(
            height=HEIGHT, title={"text": f"The front: {record.score_name} and {axis}"}, margin={"t": 48}
        )
        board.figure(f"front-{axis}", figure.to_json())
    for finalist in record.finalists:
        test, dense = _tested(record, finalist), record.dense["selection"]
        board.add_note(finalist.trial, finalist_note(finalist, test, dense, status(record, finalist)))
        if (trial := _trial_of(finalist)) is not None:
            board.later(trial, later_attributes(finalist, test, [*record.objectives], None))
        onnx = run.path / finalist.folder / "model.onnx"
        if onnx.is_file():
            board.attach(finalist.trial, f"{finalist.name}.onnx", onnx.read_bytes())


def show_registered(run: RunFolder, record: RunRecord, published: Published) -> None:
    """After registration: MLflow's run ids, and which versions there are."""
    board = _board(run)
    board.attribute("mlflow_run_id", published.runs[record.run_id])
    versions = {v.finalist: f", {v.name} version {v.version}" for v in published.versions}
    for finalist in record.finalists:
        run_id = published.runs.get(finalist.name)
        attributes = later_attributes(finalist, _tested(record, finalist), [*record.objectives], run_id)
        if (trial := _trial_of(finalist)) is not None:
            board.later(trial, attributes)
        if run_id is not None:
            board.add_note(finalist.trial, f"MLflow run: `{run_id}`{versions.get(finalist.name, ', not registered')}")


def _tested(record: RunRecord, finalist: Recovered) -> Measurement | None:
    verdict = record.verdicts.get(finalist.name)
    return verdict.test if verdict else None


def _board(run: RunFolder) -> Board:
    return Board(open_storage(run.state / DATABASE), run.run_id, run.state / ARTIFACTS)


def open_dashboard(project: Path, port: int, announce: Callable[[str], None], *, in_container: bool) -> None:
    """Serve the dashboard on a project's studies until it is stopped. Raises what `serve` raises."""
    serve(project / STATE / DATABASE, port, announce, in_container=in_container)


def _trial_of(finalist: Recovered) -> int | None:
    """The trial whose attributes are this finalist's: a trial has those of one network, which is not the one in int8."""
    return None if finalist.quantized is not None else finalist.trial
