"""`secateur`: what can be typed. Each command is a few lines; the work is in `secateur.pipelines`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateur import __version__
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from secateur.definition import PipelineDefinition

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

app = typer.Typer(
    name="secateur",
    help="Compress a trained PyTorch model: search, measure on the device, fine-tune the front, register what holds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

device_app = typer.Typer(name="device", help="Devices that models are measured on.", no_args_is_help=True)
app.add_typer(device_app)

Pipeline = Annotated[str, typer.Argument(help="A name in pipelines/ (such as quick) or a path to a YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, e.g. search.trials=100. May be repeated."),
]
RunId = Annotated[str | None, typer.Argument(help="The run's id; the latest one if left out.")]
Project = Annotated[
    Path, typer.Option("--project", help="The folder whose mlruns/ holds the run.", show_default="the current one")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option("--device", help="Where fine-tuning runs: cpu or cuda.")]


@app.command()
def run(
    pipeline: Pipeline,
    set_: Set = None,
    device: Device = "cpu",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew although an unfinished run exists.")] = False,
) -> None:
    """Run a pipeline; an unfinished run of the same definition goes on where it was."""
    from secateur.cli.views import show_outcome, watching
    from secateur.pipelines.run import run_pipeline

    definition, root = _load(pipeline, set_)
    with watching() as listener:
        outcome = run_pipeline(definition, root, pipeline, device=_device(device), fresh=fresh, listener=listener)
    show_outcome(outcome)


@app.command()
def resume(run_id: RunId = None, device: Device = "cpu", project: Project = Path()) -> None:
    """Go on with an unfinished run (the latest, or the one that is named)."""
    from secateur.cli.views import show_outcome, watching
    from secateur.pipelines.run import resume_run
    from secateur.pipelines.state import find_run

    folder = find_run(project.resolve(), run_id, unfinished=True)
    with watching() as listener:
        outcome = resume_run(folder, device=_device(device), listener=listener)
    show_outcome(outcome)


@app.command()
def check(pipeline: Pipeline, set_: Set = None, as_json: Json = False) -> None:
    """Say what would happen: groups, search space, costs, what is measured where. Nothing is written."""
    from secateur.cli.views import show_check
    from secateur.pipelines.check import check_pipeline

    definition, root = _load(pipeline, set_)
    show_check(check_pipeline(definition, root), as_json=as_json)


@app.command()
def show(run_id: RunId = None, as_json: Json = False, project: Project = Path()) -> None:
    """Print a run's before-and-after table."""
    from secateur.cli.views import show_run
    from secateur.pipelines.state import find_run

    show_run(find_run(project.resolve(), run_id), as_json=as_json)


@app.command()
def flush(run_id: RunId = None, project: Project = Path()) -> None:
    """Send a finished run to MLflow, after its tracking server was down."""
    from secateur.cli.views import show_outcome, watching
    from secateur.pipelines.run import finish_run
    from secateur.pipelines.state import find_run

    folder = find_run(project.resolve(), run_id)
    with watching() as listener:
        outcome = finish_run(folder, listener)
    show_outcome(outcome)


@device_app.command("check")
def device_check(
    name: Annotated[str, typer.Argument(help="An evaluator in evaluators/ (its device), a path to one, or `local`.")],
    as_json: Json = False,
) -> None:
    """Prove a device: keys, versions, runtime, noise floor. Prints its fingerprint."""
    from secateur.cli.device_views import show_devices
    from secateur.pipelines.devices import check_devices

    show_devices(check_devices(name), as_json=as_json)


@app.command()
def measure(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    device: Annotated[str, typer.Option("--device", help="As in `secateur device check`.")] = "local",
    against: Annotated[Path | None, typer.Option("--against", help="The ONNX file that ratios refer to.")] = None,
    as_json: Json = False,
) -> None:
    """Measure an exported model on a device: latency with its interval, throughput, memory, temperature, energy."""
    from secateur.cli.device_views import show_measured
    from secateur.pipelines.devices import measure_file

    show_measured(measure_file(model, device, against), as_json=as_json)


@app.command()
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


@app.command()
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


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, samplers, runtimes, devices, metrics or workloads.")],
    as_json: Json = False,
) -> None:
    """Say what there is, and what needs which extra."""
    from secateur.cli.views import show_listing
    from secateur.definition import one_of
    from secateur.pipelines.catalogue import CATALOGUE

    show_listing(what, CATALOGUE[one_of(what, CATALOGUE, "secateur list", "listing")](), as_json=as_json)


@app.command()
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


def _version(value: bool) -> None:  # noqa: FBT001 # typer's callback
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


def _load(pipeline: str, texts: list[str] | None) -> tuple[PipelineDefinition, Path]:
    from secateur.definition import Override, load_pipeline

    return load_pipeline(pipeline, [Override.parse(text) for text in texts or []])


def _device(device: str) -> str:
    from secateur.definition import one_of

    return one_of(device, ("cpu", "cuda"), "--device", "device")


def main() -> None:
    """The console script: errors are one message and an exit code, never a traceback."""
    try:
        app()
    except SecateurError as error:
        sys.stderr.write(f"secateur: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write(
                "\nsecateur: stopped. Whatever was finished is kept; the same command goes on from here.\n"
            )
        raise
