"""Commands about a project and what there is to choose from: init, list, schema, dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import completion
from secateur.cli.options import Json, Project
from secateur.errors import DefinitionError


def init(
    folder: Annotated[Path, typer.Argument(help="Where to lay out the project; created where missing.")],
    workload: Annotated[
        str | None,
        typer.Option(
            help="Your factory, `my_model.py:workload` or `module:attribute`: its groups are listed in the pipeline."
        ),
    ] = None,
) -> None:
    """Lay out a project: pipelines/, search_spaces/, evaluators/, and a commented pipeline."""
    from secateur.cli.views import show_written
    from secateur.pipelines.scaffold import lay_out

    show_written(lay_out(folder, workload))


def list_(
    what: Annotated[
        str,
        typer.Argument(help=f"{', '.join(completion.LISTINGS)}.", autocompletion=completion.listings),
    ],
    as_json: Json = False,
    project: Project = Path(),
) -> None:
    """List what a definition can name, and which extra each entry needs."""
    from secateur.cli.views import show_listing
    from secateur.definition import one_of
    from secateur.pipelines.catalogue import CATALOGUE

    entries = CATALOGUE[one_of(what, CATALOGUE, "secateur list", "listing")](project.resolve())
    show_listing(what, entries, as_json=as_json)


def schema(
    kind: Annotated[str, typer.Argument(help="pipeline, search_space or evaluator.")] = "pipeline",
    write: Annotated[Path | None, typer.Option(help="Write all schemas into this folder instead.")] = None,
) -> None:
    """Print the JSON Schema of a kind of definition, for editors."""
    import json

    from secateur.cli.views import show_written
    from secateur.definition import one_of
    from secateur.files import write as write_file
    from secateur.pipelines.catalogue import schemas

    found = schemas()
    if write is None:
        typer.echo(json.dumps(found[one_of(kind, found, "secateur schema", "kind")], indent=2))
        return
    files = {write / f"{name}.json": json.dumps(content, indent=2) + "\n" for name, content in found.items()}
    for file, content in files.items():
        write_file(file, content)
    show_written(list(files))


def relocate(project: Project = Path()) -> None:
    """Correct the file addresses in MLflow's embedded database after the project was moved; the next run does so by itself."""
    from secateur.pipelines.state import STATE
    from secateur.registry import DATABASE
    from secateur.registry import relocate as rewrite

    state = project.resolve() / STATE
    if not (state / DATABASE).is_file():
        raise DefinitionError(
            f"There is no {state / DATABASE}: nothing was registered here. --project names another folder."
        )
    former = rewrite(state)
    typer.echo(
        "".join(f"moved from {place.parent}\n" for place in former) or "Nothing to do: every address is right.",
        nl=not former,
    )


def dashboard(
    project: Project = Path(),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free one.")] = 8080,
    in_container: Annotated[
        bool, typer.Option("--in-container", help="Listen beyond loopback: the port is published on loopback.")
    ] = False,
) -> None:
    """Open the Optuna dashboard on the project's studies, on this machine alone, also beside a run. Ctrl-C ends it."""
    from secateur.pipelines.dashboard import open_dashboard

    def announce(url: str) -> None:
        typer.echo(f"{url}  (Ctrl-C ends it)")

    open_dashboard(project.resolve(), port, announce, in_container=in_container)
