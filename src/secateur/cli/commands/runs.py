"""Commands about the runs of a project: show."""

from __future__ import annotations

from pathlib import Path

from secateur.cli.options import Json, Project, RunId


def show(run_id: RunId = None, as_json: Json = False, project: Project = Path()) -> None:
    """Print a run's before-and-after table."""
    from secateur.cli.views import show_run
    from secateur.pipelines.state import find_run

    show_run(find_run(project.resolve(), run_id), as_json=as_json)
