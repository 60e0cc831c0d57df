"""Text → YAML tree, with limits: nothing that a person would write comes near them, and nothing that does costs time.

The size is looked at before the text is read, depth and number of values (through aliases: an anchor counts as often as it is
used) before anything is composed. What composes is then held to what a definition may contain: text, finite numbers, true, false,
null, lists, and mappings with text as keys.
"""

from __future__ import annotations

import datetime as dt
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean

from secateur.errors import DefinitionError, first_line
from secateur.redaction import has_credentials

MOST_BYTES = 1_000_000
MOST_VALUES = 10_000
"""Keys and values, aliases expanded."""
DEEPEST = 40
"""Lists and mappings inside each other."""
HELD = "a definition holds text, numbers, true, false, null, lists and mappings"

Place = Callable[[int], str]
"""Line, from 1 → what an error's message begins with."""
Path_ = tuple[str | int, ...]

_DATE = (dt.date, dt.time)


def read_text(path: Path, label: str) -> str:
    """The text of a definition file. Raises DefinitionError where it cannot be read, is too large or is no text."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise DefinitionError(f"{label}: cannot be read: {error.strerror}") from error
    if len(raw) > MOST_BYTES:
        raise DefinitionError(f"{label}: is larger than {MOST_BYTES:,} bytes, the most that a definition may have.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DefinitionError(f"{label}:{line}: is not UTF-8 text: {error.reason}.") from error


def parsed(text: str, place: Place) -> Any:
    """The tree of a YAML text, as ruamel's types, which know their lines.

    Raises DefinitionError for what is not valid YAML, and for what is beyond the limits before it is composed.
    """
    try:
        _within_limits(text, place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anchors that are defined twice
            return YAML(typ="rt").load(text)
    except DefinitionError:
        raise
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise DefinitionError(f"{place(line)}: not valid YAML: {first_line(error)}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise DefinitionError(f"{place(mark.line + 1 if mark else 1)}: not valid YAML: {problem}") from error
    except Exception as error:  # ruamel lets through what int(), float() and date() raise, and errors of its own
        raise DefinitionError(f"{place(1)}: not valid YAML: {first_line(error)}") from error


def _within_limits(text: str, place: Place) -> None:
    """Count what the text would become, event by event. Raises DefinitionError as soon as a limit is passed."""
    open_ones: list[tuple[str | None, int]] = []  # of each open list or mapping: its anchor, and the count before it
    anchored: dict[str, int] = {}
    count = documents = 0
    for event in YAML(typ="rt").parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise DefinitionError(
                    f"{place(line)}: a second document (---) begins here; a definition is one document."
                )
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_ones.pop()
            if anchor is not None:
                anchored[anchor] = count - before
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_ones):
                raise DefinitionError(f"{place(line)}: '*{event.anchor}' is inside the node that it refers to.")
            count += anchored.get(event.anchor, 1)
        elif isinstance(event, (ScalarEvent, CollectionStartEvent)):
            count += 1
            if event.tag is not None:
                raise DefinitionError(
                    f"{place(line)}: the tag {_tag(str(event.tag))} is not allowed; {HELD}. Write a list, or text in quotes."
                )
            if isinstance(event, CollectionStartEvent):
                open_ones.append((event.anchor, count - 1))
                if len(open_ones) > DEEPEST:
                    raise DefinitionError(f"{place(line)}: lists and mappings are nested more than {DEEPEST} deep.")
            elif event.anchor is not None:
                anchored[event.anchor] = 1
        if count > MOST_VALUES:
            raise DefinitionError(
                f"{place(line)}: here the definition passes {MOST_VALUES:,} keys and values (anchors count as often as they are "
                "used), the most that it may have."
            )


def check_values(tree: Any, where: Callable[[Path_], str], path: Path_ = ()) -> None:
    """Raise DefinitionError where a tree holds something else than text, finite numbers, true, false, null, lists and mappings.

    where: path → what an error's message begins with.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if not isinstance(key, str):
                raise DefinitionError(
                    f"{where(path)}: the key {_shown(key)} is not text. Put it in quotes: '{_shown(key)}'."
                )
            _check_text(key, where, (*path, key))
            check_values(value, where, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            check_values(value, where, (*path, i))
    elif isinstance(tree, str):
        _check_text(tree, where, path)
    elif isinstance(tree, float) and not math.isfinite(tree):
        raise DefinitionError(f"{where(path)}: {_named(path)} is {float(tree)}: a number must be finite.")
    elif isinstance(tree, _DATE):
        raise DefinitionError(f"{where(path)}: {_named(path)} is a date; {HELD}. Put it in quotes: '{tree}'.")
    elif not (tree is None or isinstance(tree, (int, float))):
        raise DefinitionError(f"{where(path)}: {_named(path)} is a {type(tree).__name__}; {HELD}.")


def _check_text(text: str, where: Callable[[Path_], str], path: Path_) -> None:
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in text):
        raise DefinitionError(
            f"{where(path)}: {_named(path)} holds a character that is no text (a NUL or half of a surrogate pair)."
        )
    if "://" in text and has_credentials(text):
        raise DefinitionError(
            f"{where(path)}: {_named(path)} carries credentials in a URL; definitions are logged. Put them in an environment "
            "variable: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for MLflow, `${NAME}` in options of a workload."
        )


def plain(node: Any) -> Any:
    """A tree as Python's own types: ruamel's scalars remember how they were written; that ends here."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for kind in (bool, str, int, float):
        if isinstance(node, kind):
            return kind(node)
    return node


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _named(path: Path_) -> str:
    return f"'{'.'.join(map(str, path))}'" if path else "the value"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"  # a line's worth
