"""Calls of the user's code: whatever it raises becomes one line with the place in the user's file.

The factory, the model, data sets, loss, score, augmentation, metrics and saliency criteria of a project are called here, or
through the wrappers that `guarded_workload` puts around them, so that no traceback of theirs reaches a person.
"""

from __future__ import annotations

import functools
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from secateur.errors import SecateurError, WorkloadError, first_line

P = ParamSpec("P")
R = TypeVar("R")

_OURS = Path(__file__).resolve().parents[1]
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}


@contextmanager
def calling(
    what: str, function: Callable[..., object] | None = None, kind: type[WorkloadError] = WorkloadError
) -> Iterator[None]:
    """Around a call of the user's code. what: the beginning of a sentence, e.g. `The workload's score`.

    function: what is called; where it takes other arguments, the place is its definition. kind: of error, for who must tell apart.

    Raises WorkloadError (or `kind`) for whatever is raised inside, `sys.exit()` included; errors of this package and Ctrl-C pass.
    """
    try:
        yield
    except SecateurError:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{what} {raised(error, function)}") from error


def guarded(function: Callable[P, R], what: str) -> Callable[P, R]:
    """The user's function, called through `calling`."""

    @functools.wraps(function, assigned=("__module__", "__name__", "__doc__"), updated=())
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with calling(what, function):
            return function(*args, **kwargs)

    return call


def raised(error: BaseException, function: Callable[..., object] | None = None) -> str:
    """The end of that sentence: `raised ValueError: … (at my_model.py:12)`."""
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r}){place(error, function)}"
    message = first_line(error)
    name = type(error).__name__
    return f"raised {name}{f': {message}' if message != name else ''}{place(error, function)}"


def place(error: BaseException, function: Callable[..., object] | None = None) -> str:
    """` (at file:line)`: the innermost line of the user's own code, else where `function` is, else the innermost line of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" (at {_short(error.filename)}:{error.lineno or 1})"
    frames = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    theirs = [frame for frame in frames if _is_users(frame[0])]
    code = getattr(function, "__code__", None)
    if not theirs and code is not None and _is_users(code.co_filename):
        theirs = [(code.co_filename, code.co_firstlineno)]
    if not frames:
        return ""
    file, line = (theirs or frames)[-1]
    return f" (at {_short(file)}:{line})"


def _is_users(file: str) -> bool:
    if file.startswith("<"):  # frozen modules, generated code
        return False
    path = Path(file).resolve()
    if _INSTALLED & set(path.parts) or path.is_relative_to(_OURS):
        return False
    return not any(path.is_relative_to(folder) for folder in _STANDARD)


def _short(file: str) -> str:
    """Relative to the working directory where the file lies below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
