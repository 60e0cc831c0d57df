"""Commands about the runs of a project: show, runs (list, compare, delete), export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import completion
from secateur.cli.options import Json, Project, RunId

runs_app = typer.Typer(name="runs", help="The runs of a project: list, compare, delete.", invoke_without_command=True)

Named = Annotated[str, typer.Argument(help="The run's id.", autocompletion=completion.runs)]


def show(run_id: RunId = None, as_json: Json = False, project: Project = Path()) -> None:
    """Print a run's before-and-after table."""
    from secateur.cli.views import show_run
    from secateur.pipelines.state import find_run

    show_run(find_run(project.resolve(), run_id), as_json=as_json)


@runs_app.callback()
def list_runs(context: typer.Context, as_json: Json = False, project: Project = Path()) -> None:
    """List the runs of a project, oldest first."""
    if context.invoked_subcommand is not None:
        return
    from secateur.cli.run_views import show_runs
    from secateur.pipelines.state import STATE, runs

    found = runs(project.resolve() / STATE)
    if not found and not as_json:
        typer.echo(f"There are no runs in {project.resolve() / STATE}. Start one with: secateur run PIPELINE", err=True)
        return
    show_runs(found, as_json=as_json)


@runs_app.command("compare")
def compare_runs(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Two or more ids.", autocompletion=completion.runs)
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="A figure to compare; may be repeated. Default: the objectives.",
            autocompletion=completion.metrics,
        ),
    ] = None,
    as_json: Json = False,
    project: Project = Path(),
) -> None:
    """Put two or more runs side by side: their best finalists, and what their definitions do not share."""
    from secateur.cli.run_views import show_comparison
    from secateur.pipelines.comparison import compare
    from secateur.pipelines.reading import read_record
    from secateur.pipelines.state import find_run

    if len(run_ids) < 2:  # one run compares with nothing
        raise typer.BadParameter("give two or more runs")
    records = [read_record(find_run(project.resolve(), run_id)) for run_id in run_ids]
    show_comparison(compare(records, metric or ()), as_json=as_json)


@runs_app.command("delete")
def delete(
    run_id: Named,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: Project = Path(),
) -> None:
    """Delete a run with its models, its study and its artifacts. What is registered in MLflow stays."""
    from secateur.pipelines.deletion import delete_run
    from secateur.pipelines.state import find_run

    run = find_run(project.resolve(), run_id)
    if not yes:
        typer.confirm(
            f"Delete {run.path} and the study '{run.run_id}'? What is registered in MLflow stays.", abort=True, err=True
        )
    delete_run(run)


def export(
    run_id: Named,
    name: Annotated[
        str, typer.Argument(help="A finalist, as `secateur show` names it.", autocompletion=completion.finalists)
    ],
    to: Annotated[Path, typer.Option("--to", help="The folder to write; created where missing.")],
    project: Project = Path(),
) -> None:
    """Write a finalist so that it can be used without secateur: ONNX, safetensors with JSON, and a loader."""
    from secateur.cli.views import show_written
    from secateur.pipelines.models import dense_module, export_finalist, finalist_named
    from secateur.pipelines.state import find_run

    run = find_run(project.resolve(), run_id)
    show_written(export_finalist(run, *finalist_named(run, name), dense_module(run), to))
