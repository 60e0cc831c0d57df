"""A YAML file that knows its lines, and how pydantic's complaints become sentences that point at them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from secateur.definition.reading import Path_, check_values, parsed, plain, read_text
from secateur.errors import DefinitionError, nearest
from secateur.redaction import scrubbed

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Source:
    """One definition file (or an inline part of one) with the line of every key.

    overrides: path → the text of the `--set` that put a value there, so that an error names it instead of a line.
    labels: path → file, for parts that an override has pulled in from another file.
    """

    def __init__(
        self,
        label: str,
        tree: Any,
        overrides: Mapping[Path_, str] | None = None,
        labels: Mapping[Path_, str] | None = None,
    ) -> None:
        self.label = label
        self.tree = tree
        self.overrides = dict(overrides or {})
        self.labels = dict(labels or {})

    @classmethod
    def read(cls, path: Path) -> Source:
        """Parse a YAML file. Raises DefinitionError with the line for syntax errors and duplicate keys."""
        label = _short(path)
        tree = parsed(read_text(path, label), lambda line: f"{label}:{line}")
        if not isinstance(tree, CommentedMap):
            raise DefinitionError(
                f"{label}:1: a definition is a mapping of keys to values; this is {type(tree).__name__}."
            )
        source = cls(label, tree)
        check_values(tree, source.where)
        return source

    @classmethod
    def of(cls, tree: Mapping[str, Any], label: str) -> Source:
        """A mapping that comes from Python: places in it have keys and no lines."""
        source = cls(label, tree)
        check_values(tree, source.where)
        return cls(label, plain(tree))

    def where(self, path: Path_) -> str:
        """`file:line` of a place in the tree; of the nearest existing parent where the place itself is missing."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return named(self.overrides[path[:length]])
        line, node = 1, self.tree
        for step in path:
            try:
                if isinstance(node, CommentedMap):
                    line = node.lc.key(step)[0] + 1
                elif isinstance(node, CommentedSeq):
                    line = node.lc.item(step)[0] + 1
                else:
                    break
                node = node[step]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        label = next((self.labels[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.labels), None)
        if label is None and not isinstance(self.tree, CommentedMap | CommentedSeq):  # it comes from Python
            return ".".join([self.label, *map(str, path)])
        return f"{label or self.label}:{line}"

    def part(self, key: str) -> Source:
        """The inline part under a key, as a source of its own."""
        label = self.label if isinstance(self.tree, CommentedMap) else f"{self.label}.{key}"
        return Source(
            self.labels.get((key,), label),
            self.tree.get(key),
            {path[1:]: text for path, text in self.overrides.items() if path[0] == key},
        )

    def written(self, path: Path_) -> Any:
        """The plain value at a path, as it stands in the file."""
        node = self.tree
        for step in path:
            node = node[step]
        return plain(node)

    def plain(self) -> dict[str, Any]:
        """The tree as plain values. Under `workload`, `${NAME}` and `${NAME:-default}` come from the environment."""
        values: dict[str, Any] = plain(self.tree)
        if "workload" in values:
            values["workload"] = expanded(values["workload"], self.where, ("workload",))
        return values

    def explain(self, error: ValidationError, model: type[BaseModel]) -> DefinitionError:
        """Pydantic's complaints as sentences, one per line."""
        return DefinitionError("\n".join(self._sentence(e, model) for e in error.errors(include_url=False)))

    def _sentence(self, error: Any, model: type[BaseModel]) -> str:
        path, part = _without_tags(model, tuple(error["loc"]))
        name = ".".join(map(str, path))
        where = self.where(path)
        kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
        if kind == "extra_forbidden":
            allowed = sorted((field.alias or key) for key, field in part.model_fields.items())
            return f"{where}: unknown key '{path[-1]}'.{nearest(str(path[-1]), allowed)} Allowed here: {', '.join(allowed)}."
        if kind == "missing":
            return f"{where}: '{name}' is missing."
        if kind == "union_tag_invalid":
            tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            hint = nearest(context["tag"], tags)
            return f"{where}: '{name}' is of the kind '{context['tag']}'.{hint} Allowed: {', '.join(tags)}."
        if kind == "union_tag_not_found":
            return f"{where}: '{name}' needs a 'kind'; the schema lists them (`secateur schema`)."
        if kind == "literal_error":
            return f"{where}: '{name}' is {shown(given)}; allowed: {context['expected']}."
        if kind == "value_error":
            return f"{where}: {name + ': ' if name else ''}{context['error']}."
        if kind == "model_type":
            return f"{where}: '{name}' is {shown(given)}; it must be a mapping of keys to values."
        if kind == "string_pattern_mismatch":
            return f"{where}: '{name}' is {shown(given)}; letters, digits, '.', '_' and '-' are allowed, a letter or digit first."
        message = error["msg"].replace("Input should be", "must be")
        return f"{where}: '{name}' is {shown(given)}; it {message[0].lower()}{message[1:]}."


def expanded(node: Any, where: Callable[[Path_], str], path: Path_ = ()) -> Any:
    """Plain values with `${NAME}` and `${NAME:-default}` taken from the environment. Raises DefinitionError where one is unset."""

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        setting = os.environ.get(name, default)
        if setting is None:
            raise DefinitionError(
                f"{where(path)}: the environment variable {name} is not set. Set it, or give the value with --set "
                f"{'.'.join(map(str, path))}=…"
            )
        return setting

    if isinstance(node, dict):
        return {key: expanded(inner, where, (*path, key)) for key, inner in node.items()}
    if isinstance(node, list):
        return [expanded(inner, where, (*path, i)) for i, inner in enumerate(node)]
    return _VARIABLE.sub(value, node) if isinstance(node, str) else node


def named(override: str) -> str:
    """What an error about a `--set` begins with."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in scrubbed(override))
    return f"--set {text if len(text) <= 200 else text[:197] + '…'}"  # some lines' worth


def one_of(name: str, allowed: Iterable[str], where: str, what: str) -> str:
    """The name itself if it is allowed. Raises DefinitionError with the list and the nearest match otherwise."""
    allowed = sorted(allowed)
    if name not in allowed:
        raise DefinitionError(
            f"{where}: unknown {what} '{name}'.{nearest(name, allowed)} Allowed: {', '.join(allowed)}."
        )
    return name


def _without_tags(model: Any, path: Path_) -> tuple[Path_, Any]:
    """A place as the file has it, and the model that describes it: pydantic puts the kind of a union's member into its paths.

    The last step of the path is not looked into.
    """
    from pydantic import BaseModel

    plain: list[str | int] = []
    alternatives: list[Any] = [model]
    for position, step in enumerate(path):
        tagged = [m for m in alternatives if len(alternatives) > 1 and step in _kinds(m)]
        if tagged:
            alternatives = tagged
            continue
        plain.append(step)
        fields = {(field.alias or name): field for name, field in alternatives[0].model_fields.items()}
        if position == len(path) - 1 or step not in fields:
            continue
        inner = [t for t in _types_in(fields[str(step)].annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        alternatives = inner or alternatives
    return tuple(plain), alternatives[0]


def _kinds(model: Any) -> tuple[Any, ...]:
    """What a model's `kind` may be."""
    from typing import get_args

    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _types_in(annotation: Any) -> Iterable[Any]:
    from typing import get_args

    arguments = get_args(annotation)
    return [annotation] if not arguments else [t for a in arguments for t in _types_in(a)]


def shown(value: Any) -> str:
    """A value as a message quotes it: short, and without secrets."""
    text = scrubbed(repr(value))
    return text if len(text) <= 60 else text[:57] + "…"  # a line's worth


def _short(path: Path) -> str:
    """Relative to the working directory where the file lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
