"""The command that a scheduler calls: retrain. Its last line on standard output is JSON, however it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli.failures import BUG
from secateur.cli.interrupts import Stop, stopping
from secateur.cli.options import INTERRUPTED, Device, Pipeline, PipelineProject, Set
from secateur.errors import DefinitionError, SecateurError, StateError, first_line
from secateur.redaction import scrubbed

STATUS = {
    2: "definition_error",
    3: "nothing_better",
    4: "gate_failed",
    75: "retry_later",
    INTERRUPTED: "interrupted",
    BUG: "bug",
}
"""By exit code, where there is no outcome."""


def retrain(
    pipeline: Pipeline,
    set_: Set = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="The new weights, in the place of `retrain.weights`: a path, models:/NAME@ALIAS or FILE.py:NAME.",
            show_default=False,
        ),
    ] = None,
    run_key: Annotated[
        str | None,
        typer.Option(
            "--run-key",
            help="Names this retraining, e.g. by its date: the same key goes on with it, or says again how it ended.",
            show_default="the latest that is not over, else a new one",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="TIME",
            help="Stop after so long (90m, 2h, 1h30m), in a state from which the same command goes on. A search ends early enough.",
            show_default=False,
        ),
    ] = None,
    result_file: Annotated[
        Path | None,
        typer.Option("--result-file", help="Write the last line there as well.", show_default=False),
    ] = None,
    device: Device = "cpu",
    project: PipelineProject = None,
) -> None:
    """Compress newly trained weights: try the choice that serves on them, search only where that is not good enough."""
    with _last_line(run_key, result_file) as result:
        seconds = None if deadline is None else seconds_of(deadline)
        with stopping(seconds) as stop, _stopped(stop), redirect_stdout(sys.stderr):
            # Here, since torch takes seconds to import, and who stops the command then must have an answer too.
            from secateur.cli.commands.running import device_named
            from secateur.cli.progress import watching
            from secateur.definition import Override
            from secateur.pipelines.retraining import Retraining
            from secateur.pipelines.retraining import retrain as retrained

            overrides = [Override.parse(text) for text in set_ or []]
            if weights is not None:
                overrides.append(Override.of("retrain.weights", weights))
            named = device_named(device)
            wanted = Retraining(pipeline, overrides, project and project.resolve(), run_key, seconds, named)
            with watching() as listener:
                result |= retrained(wanted, listener)
    if result["exit_code"]:
        sys.stderr.write(f"secateur: {result['message']}\n")
        raise typer.Exit(result["exit_code"])


def seconds_of(text: str) -> float:
    """`90s`, `45m`, `2h` or `1h30m` in seconds. Raises DefinitionError."""
    match = re.fullmatch(r"(?=\d)(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", text.strip())
    seconds = (
        sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if not seconds:
        raise DefinitionError(f"--deadline '{text[:40]}': write hours, minutes and seconds as 2h, 90m, 45s or 1h30m.")
    return float(seconds)


@contextmanager
def _stopped(stop: Stop) -> Iterator[None]:
    """A stop that a scheduler wanted is for a later call to go on from, whatever native code has made of it on its way."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if stop.reason is None:
            raise
        raise StateError(
            f"Stopped: {stop.reason}. Whatever was finished is kept; the same command goes on from here."
        ) from error


@contextmanager
def _last_line(run_key: str | None, file: Path | None) -> Iterator[dict[str, Any]]:
    """Write the result that is filled in inside, or what has gone wrong, as the last line; and to a file."""
    result: dict[str, Any] = {}
    try:
        if file is not None:
            _remove(file)
        yield result
    except SecateurError as error:
        _write(_failure(error.exit_code, run_key, str(error)), file)
        raise
    except KeyboardInterrupt:
        _write(_failure(INTERRUPTED, run_key, "stopped by Ctrl-C"), file)
        raise
    except Exception as error:
        _write(_failure(BUG, run_key, first_line(error)), file)
        raise
    _write(result, file)


def _failure(code: int, run_key: str | None, message: str) -> dict[str, Any]:
    return {
        "status": STATUS[code],
        "exit_code": code,
        "run_key": run_key,
        "message": scrubbed(message),
    }


def _remove(file: Path) -> None:
    """An old result must not be taken for this one's. Raises StateError where none could be written there in the end."""
    from secateur.files import disk_errors, write

    write(file, "")
    with disk_errors(file):
        file.unlink()


def _write(result: dict[str, Any], file: Path | None) -> None:
    """Raises StateError where the file does not take it; the last line says so then."""
    from secateur.files import write

    try:
        if file is not None:
            write(file, json.dumps(result) + "\n")
    except StateError as error:
        result = _failure(error.exit_code, result["run_key"], str(error))
        raise
    finally:
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
