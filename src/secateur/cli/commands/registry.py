"""Commands about registered models: promote, rollback, history, verify."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateur.cli.options import Json, Project

if TYPE_CHECKING:
    from secateur.registry.history import Move

Name = Annotated[str, typer.Argument(help="The registered model's name.")]
Alias = Annotated[str, typer.Option("--alias", help="The alias that moves.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="An MLflow server. Default: MLFLOW_TRACKING_URI, else the project's embedded database.",
        show_default=False,
    ),
]


def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="A version's number, or @alias.")] = "@candidate",
    alias: Alias = "champion",
    why: Why = "",
    force: Annotated[bool, typer.Option("--force", help="Promote a version that has failed the gate.")] = False,
    tracking_uri: TrackingUri = None,
    project: Project = Path(),
) -> None:
    """Give an alias to a version of a registered model: by default @champion to the one that is @candidate."""
    from secateur.registry import history, registry

    with registry(_state(project), _uri(tracking_uri)) as server:
        _said(name, history.promote(server, name, version, alias=alias, why=why, force=force))


def rollback(
    name: Name,
    alias: Alias = "champion",
    why: Why = "",
    tracking_uri: TrackingUri = None,
    project: Project = Path(),
) -> None:
    """Give an alias back to the version that had it before. Once more goes one version further back."""
    from secateur.registry import history, registry

    with registry(_state(project), _uri(tracking_uri)) as server:
        _said(name, history.rollback(server, name, alias=alias, why=why))


def history(name: Name, as_json: Json = False, tracking_uri: TrackingUri = None, project: Project = Path()) -> None:
    """Who moved which alias of a registered model, when, why, and from which version."""
    from secateur.cli.tables import console, listing, show_table
    from secateur.registry import history as kept
    from secateur.registry import registry

    with registry(_state(project), _uri(tracking_uri)) as server:
        moves = kept.moves(server, name)
    if as_json:
        sys.stdout.write(json.dumps([asdict(move) for move in moves], indent=1) + "\n")
    elif not moves:
        typer.echo(f"No alias of '{name}' has been moved by promote, rollback or a gate.", err=True)
    else:
        rows = [
            {
                "when": move.when,
                "alias": f"@{move.alias}",
                "from": move.before or "–",
                "to": move.version,
                "by": move.action if move.state == "done" else f"{move.action} ({_CUT_OFF[move.state]})",
                "who": move.who,
                "why": move.why,
            }
            for move in moves
        ]
        show_table(console(), listing(rows, "why"))


def verify(
    version: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]", help="A version; by default @champion.")],
    as_json: Json = False,
    tracking_uri: TrackingUri = None,
    project: Project = Path(),
) -> None:
    """Fetch a registered version, check its files, and measure it anew: do its figures hold on this device?"""
    from secateur.cli.views import show_verification
    from secateur.pipelines.verifying import verify as verified

    name, mark, rest = re.match(r"([^@/]*)([@/]?)(.*)", version, re.DOTALL).groups()  # type: ignore[union-attr] # it matches anything
    number = rest if mark == "/" else f"@{rest or 'champion'}"
    verification = verified(project.resolve(), name, number, _uri(tracking_uri))
    show_verification(verification, as_json=as_json)
    verification.require_held()


_CUT_OFF = {"begun": "cut off", "abandoned": "cut off, never moved"}


def _said(name: str, move: Move) -> None:
    before = f", which was version {move.before}" if move.before else ""
    typer.echo(f"@{move.alias} of {name} is now version {move.version}{before}.")


def _state(project: Path) -> Path:
    from secateur.pipelines.state import STATE

    return project.resolve() / STATE


def _uri(given: str | None) -> str | None:
    from secateur.registry import server_named

    return server_named(given)
