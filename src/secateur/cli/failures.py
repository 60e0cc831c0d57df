"""How a command ends when something goes wrong: one message and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from secateur.cli.options import INTERRUPTED
from secateur.errors import DefinitionError, SecateurError, first_line
from secateur.redaction import scrubbed

BUG = 70
"""EX_SOFTWARE of sysexits.h: an internal error."""


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Errors of ours are shown as they are; anything else is a bug of ours: one line that says where its traceback is."""
    try:
        yield
    except SecateurError as error:
        sys.stderr.write(f"secateur: {scrubbed(str(error))}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write(
                "\nsecateur: stopped. Whatever was finished is kept; the same command goes on from here.\n"
            )
        raise
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # of a path that was typed: ours are short
            _bug(error)
        sys.stderr.write(f"secateur: '{str(error.filename)[:60]}…' is longer than a file's name may be.\n")
        sys.exit(DefinitionError.exit_code)
    except Exception as error:  # noqa: BLE001 # whatever is left is a bug, and people get a line and a file
        _bug(error)


def _bug(error: Exception) -> NoReturn:
    _report(error)
    sys.exit(BUG)


def _report(error: Exception) -> None:
    from secateur.cli.verbosity import SETTINGS
    from secateur.logs import traceback_file

    file = traceback_file(error, _state(), f"secateur {' '.join(sys.argv[1:2])}")
    what = type(error).__name__
    line = first_line(error)
    where = f"The traceback is in {file}; please report it with that file." if file else "Please report it."
    sys.stderr.write(f"secateur: This is a bug in secateur: {what}{'' if line == what else f': {line}'}. {where}\n")
    if SETTINGS.level > 0 and file is not None:
        sys.stderr.write(file.read_text(encoding="utf-8", errors="replace"))


def _state() -> Path:
    """The `mlruns/` of the project that the command line names: its parser may be what failed, so it is not asked."""
    words = sys.argv[1:]
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--project"]
    named += [word.removeprefix("--project=") for word in words if word.startswith("--project=")]
    return Path(named[-1] if named else ".").resolve() / "mlruns"
