"""How much the terminal says: `-v` and `-q`, anywhere on the command line."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from secateur.redaction import Scrubbed

if TYPE_CHECKING:
    from rich.console import Console

LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_FLAGS = {"-v", "-vv", "--verbose", "-q", "--quiet"}


class Settings:
    """What was asked for on the command line. level: a key of LEVELS."""

    level = 0


SETTINGS = Settings()


class AnywhereGroup(TyperGroup):
    """The root command: its flags for verbosity may stand behind the name of a command as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move those flags to the front; what follows `--` is left alone."""
        end = args.index("--") if "--" in args else len(args)
        flags = [a for a in args[:end] if a in _FLAGS]
        return super().parse_args(ctx, flags + [a for a in args[:end] if a not in _FLAGS] + args[end:])


@cache
def console() -> Console:
    """The terminal's standard error. One console for progress and log lines: they must not overwrite each other."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def logging_on_the_terminal() -> Iterator[None]:
    """Show log lines of every library on standard error, from the level that `set_level` gives, until the end of the block."""
    SETTINGS.level = 0
    try:
        yield
    finally:
        root = logging.getLogger()
        for handler in [h for h in root.handlers if h.get_name() == "secateur"]:
            root.removeHandler(handler)
        logging.getLogger("secateur").setLevel(logging.NOTSET)


def set_level(level: int) -> None:
    """level: a key of LEVELS; what lies beyond is cut."""
    from rich.logging import RichHandler

    SETTINGS.level = max(min(LEVELS), min(max(LEVELS), level))
    handler = RichHandler(LEVELS[SETTINGS.level], console(), show_path=False, markup=False)
    handler.set_name("secateur")
    handler.setFormatter(Scrubbed("%(message)s"))
    logging.getLogger().addHandler(handler)
    if SETTINGS.level > 0:
        logging.getLogger("secateur").setLevel(LEVELS[SETTINGS.level])
