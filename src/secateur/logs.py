"""Where the package logs: `logging.getLogger("secateur")`, into a run's `log.txt` and onwards to whoever listens."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from secateur.errors import SecateurError
from secateur.files import disk_errors, private_folder
from secateur.redaction import Scrubbed, scrubbed

LOGGER = logging.getLogger("secateur")
_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
_NOTE = "The traceback is in "


class _File(logging.FileHandler):
    """A log file. A line that the disk does not take is dropped: what the run itself cannot write ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # the interface
        """Say nothing; by default logging prints a traceback."""


class _Onwards(logging.Handler):
    """Hands to the root logger what it would have received anyway: the file's level is nobody else's."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on."""
        logging.getLogger().handle(record)


@contextlib.contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Log into a file, level INFO and above, until the end of the block; the file is appended to.

    An exception that leaves the block is written there: one line for an error of ours, the traceback for a bug, which also gets
    a note that names the file (see `traceback_file`). Raises StateError where the file cannot be opened.
    """
    with disk_errors(file):
        written = _File(file, encoding="utf-8")
    written.setFormatter(Scrubbed(_FORMAT))
    before, propagated = LOGGER.level, LOGGER.propagate
    onwards = _Onwards(LOGGER.getEffectiveLevel())
    LOGGER.setLevel(min(logging.INFO, LOGGER.getEffectiveLevel()))
    LOGGER.propagate = False
    for handler in (written, onwards):
        LOGGER.addHandler(handler)
    try:
        yield
    except SecateurError as error:
        _write(written, logging.ERROR, str(error))
        raise
    except KeyboardInterrupt:
        _write(written, logging.WARNING, "interrupted")
        raise
    except Exception as error:
        _write(written, logging.CRITICAL, f"a bug in secateur:\n{_traceback(error)}")
        error.add_note(f"{_NOTE}{file}")
        raise
    finally:
        for handler in (written, onwards):
            LOGGER.removeHandler(handler)
        LOGGER.propagate = propagated
        LOGGER.setLevel(before)
        with contextlib.suppress(OSError):  # of a full disk: it flushes
            written.close()


def _write(handler: logging.Handler, level: int, text: str) -> None:
    """Into one handler alone: the terminal gets its own line from whoever catches the error."""
    handler.handle(LOGGER.makeRecord(LOGGER.name, level, __file__, 0, text, (), None))


def _traceback(error: BaseException) -> str:
    return scrubbed("".join(traceback.format_exception(error)).rstrip())


def traceback_file(error: BaseException, state: Path, command: str = "") -> Path | None:
    """The file that holds a bug's traceback: the run's log where there was a run, else one that is written now.

    state: the project's `mlruns/`; where there is none, a folder of this user's in the system's temporary folder is taken. command:
    the name of the command, without its arguments, which may hold what is not for others. None where no disk takes it.
    """
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_NOTE):
            return Path(note.removeprefix(_NOTE))
    name = f"bug-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    text = f"{command}\nPython {platform.python_version()}, {platform.platform()}\n\n{_traceback(error)}\n"
    with contextlib.suppress(OSError, SecateurError):
        folder = state / "logs" if state.is_dir() else private_folder("logs")
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name
    return None
