"""Who moved which alias to which version, when and why: kept beside the registered model, in tags that are only ever added.

An entry is written before the alias moves and marked when it has moved, so that one which a crash cut off is seen to be so.
"""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from secateur.errors import DefinitionError, RegistryUnreachable, first_line, nearest
from secateur.redaction import scrubbed
from secateur.registry.embedded import DATABASE, open_embedded
from secateur.registry.tracking import Registered, Tracking, TrackingError, tracking

CHAMPION = "champion"
STATUS = "validation_status"
"""Tag of a version: `passed`, `failed` or `pending`, as the gate left it."""
_ENTRY = "secateur.history."
Action = Literal["promote", "rollback", "gate"]


@dataclass(frozen=True)
class Move:
    """An alias that went from one version to another.

    when: UTC, ISO 8601. who: user@host. action: by which command, or the gate of a run. before: the version that had the alias,
    None where nobody had it. state: `begun` where it was cut off, `abandoned` where a later move has found it so and the alias
    elsewhere.
    """

    when: str
    who: str
    why: str
    action: Action
    alias: str
    version: str
    before: str | None
    state: Literal["begun", "done", "abandoned"] = "begun"


@contextmanager
def registry(state: Path, tracking_uri: str | None) -> Iterator[Tracking]:
    """The registry of a project. state: its `mlruns/`. tracking_uri: a server instead of the embedded database.

    Raises DefinitionError where there is no registry yet, RegistryUnreachable where the server does not answer, StateError where
    the database cannot be used.
    """
    if tracking_uri is None and not (state / DATABASE).is_file():
        raise DefinitionError(
            f"Nothing has been registered in {state} yet. Say where the registry is with --project or --tracking-uri."
        )
    uri = tracking_uri or open_embedded(state)
    try:
        with tracking(uri) as server:
            yield server
    except TrackingError as error:
        raise RegistryUnreachable(f"MLflow at {scrubbed(uri)}: {first_line(error)}. Try again later.") from error


def version_of(server: Tracking, name: str, number: str) -> Registered:
    """A version by its number or `@alias`. Raises DefinitionError naming what there is."""
    found = server.version(name, number)
    if found is None:
        _check_there(server, name)
        raise DefinitionError(
            f"'{name}' has no version {number}. `secateur history {name}` lists where its aliases are."
        )
    return found


def moves(server: Tracking, name: str) -> list[Move]:
    """The entries of a registered model, oldest first. Raises DefinitionError where there is no such model."""
    return [move for _, move in _entries(server, name)]


def promote(
    server: Tracking, name: str, number: str, *, alias: str = CHAMPION, why: str = "", force: bool = False
) -> Move:
    """Give an alias to a version. number: its number, or `@alias`. force: although it has failed the gate.

    Raises DefinitionError where there is no such version, where it has the alias already, or has failed the gate.
    """
    version = version_of(server, name, number)
    if alias in version.aliases:
        raise DefinitionError(f"Version {version.number} of '{name}' is @{alias} already.")
    if version.tags.get(STATUS) == "failed" and not force:
        raise DefinitionError(
            f"Version {version.number} of '{name}' has failed the gate; its description says by what. Promote it all the same with "
            "--force."
        )
    return moved(server, version, alias, "promote", why)


def rollback(server: Tracking, name: str, *, alias: str = CHAMPION, why: str = "") -> Move:
    """Give an alias back to the version that had it before the one that has it now.

    A second rollback goes one further back. Raises DefinitionError where no earlier version is known, or where it is gone.
    """
    holder = version_of(server, name, f"@{alias}")
    settle(server, name)
    before = _before(holder.number, [m for m in moves(server, name) if (m.alias, m.state) == (alias, "done")])
    if before is None:
        raise DefinitionError(
            f"No version of '{name}' is known to have been @{alias} before version {holder.number}. Choose one with: "
            f"secateur promote {name} VERSION --alias {alias}"
        )
    return moved(server, version_of(server, name, before), alias, "rollback", why)


def _before(holder: str, done: Sequence[Move]) -> str | None:
    """The version below the holder on the pile that promotions have made and rollbacks have taken from."""
    pile: list[str | None] = []
    for move in done:
        if move.action == "rollback":
            pile = pile[: max((i for i, version in enumerate(pile) if version == move.version), default=-1) + 1]
        elif not pile or pile[-1] != move.before:
            pile = [move.before]  # somebody has moved the alias elsewhere in between
        pile = pile if pile and pile[-1] == move.version else [*pile, move.version]
    return pile[-2] if len(pile) > 1 and pile[-1] == holder else None


def moved(server: Tracking, version: Registered, alias: str, action: Action, why: str) -> Move:
    """Move an alias, and write down that it has moved."""
    settle(server, version.name)
    holder = server.version(version.name, f"@{alias}")
    now = datetime.now(UTC)
    who, before = f"{user()}@{socket.gethostname()}", holder.number if holder else None
    move = Move(now.isoformat(timespec="seconds"), who, why, action, alias, version.number, before)
    key = f"{_ENTRY}{now:%Y%m%dT%H%M%S.%f}"
    _write(server, version.name, key, move)
    server.point(version.name, alias, version.number)
    return _write(server, version.name, key, replace(move, state="done"))


def settle(server: Tracking, name: str) -> None:
    """Say of entries that were cut off whether their alias had moved by then."""
    for key, entry in _entries(server, name):
        if entry.state == "begun":
            holder = server.version(name, f"@{entry.alias}")
            arrived = holder is not None and holder.number == entry.version
            _write(server, name, key, replace(entry, state="done" if arrived else "abandoned"))


def _entries(server: Tracking, name: str) -> list[tuple[str, Move]]:
    tags = server.model_tags(name)
    if tags is None:
        _check_there(server, name)
        return []
    known = {field.name for field in fields(Move)}  # a later version may tell more
    entries = ((key, json.loads(tags[key])) for key in sorted(tags) if key.startswith(_ENTRY))
    return [(key, Move(**{name: value for name, value in entry.items() if name in known})) for key, entry in entries]


def _check_there(server: Tracking, name: str) -> None:
    if name not in (names := server.models()):
        there = f"There are: {', '.join(names)}.{nearest(name, names)}" if names else "There are none."
        raise DefinitionError(f"There is no registered model '{name}'. {there}")


def _write(server: Tracking, name: str, key: str, move: Move) -> Move:
    server.tag_model(name, key, json.dumps(asdict(move)))
    return move


def user() -> str:
    """Who is at work, `unknown` for a container's user without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
