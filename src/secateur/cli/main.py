"""`secateur`: the commands put together, and the entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from secateur import __version__
from secateur.cli.commands import devices, project, registry, retraining, running, runs
from secateur.cli.failures import reported
from secateur.cli.supervisor import ending, supervise
from secateur.cli.verbosity import AnywhereGroup, logging_on_the_terminal, set_level
from secateur.torch_environment import choose

app = typer.Typer(
    name="secateur",
    cls=AnywhereGroup,
    help="Compress a trained PyTorch model: search, measure on the device, fine-tune the front, register what holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    running.run,
    running.resume,
    running.check,
    retraining.retrain,
    runs.show,
    runs.export,
    running.flush,
    registry.promote,
    registry.rollback,
    registry.history,
    registry.verify,
    devices.measure,
    project.dashboard,
    project.relocate,
    project.init,
    project.list_,
    project.schema,
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(runs.runs_app)
app.add_typer(devices.device_app)


def _version(value: bool) -> None:  # noqa: FBT001 # typer's callback
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 # its callback has printed it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log more on the terminal; twice for everything.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only, and no progress.")] = False,
) -> None:
    """Options of all commands; `-v` and `-q` may also stand behind the command."""
    set_level(-1 if quiet else verbose)


def main() -> None:
    """The console script: errors are one message and an exit code, never a traceback."""
    choose()
    supervise()
    with ending(), reported(), logging_on_the_terminal():
        app()
