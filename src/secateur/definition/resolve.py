"""Find a pipeline by name or path, follow its references, apply overrides, validate everything."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from secateur.definition.declared import Declared
from secateur.definition.evaluator import EvaluatorDefinition
from secateur.definition.pipeline import PipelineDefinition
from secateur.definition.reading import DEEPEST, MOST_VALUES, Path_, check_values, parsed, plain
from secateur.definition.search_space import SearchSpaceDefinition
from secateur.definition.source import Source, named, shown
from secateur.errors import DefinitionError, nearest

D = TypeVar("D", bound=Declared)

_REFERENCES: dict[Path_, str] = {("search_space",): "search_spaces", ("evaluator",): "evaluators"}


@dataclass(frozen=True)
class Override:
    """One `--set path.to.key=value`; the value is read as YAML."""

    path: Path_
    value: Any
    text: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Raises DefinitionError where the text is not `key=value`."""
        dotted, separator, value = text.partition("=")
        if not separator or not dotted.strip():
            raise DefinitionError(f"{named(text)}: write it as key=value, e.g. --set search.trials=100")
        steps = dotted.strip().split(".")
        if len(steps) > DEEPEST:
            raise DefinitionError(f"{named(text)}: the key has more than {DEEPEST} parts.")
        for step in steps:
            if not step or (step.isdecimal() and not step.isascii()):
                raise DefinitionError(
                    f"{named(text)}: '{step}' is no part of a key; parts are names or numbers from 0, with dots between them."
                )
        tree = parsed(value, lambda _: named(text)) if value else None
        check_values(tree, lambda _: named(text), tuple(steps))
        return cls(tuple(int(step) if _is_index(step) else step for step in steps), plain(tree), text)

    @classmethod
    def of(cls, key: str, value: Any) -> Override:
        """The same from Python: a dotted key, and the value that YAML would hold. Raises DefinitionError as `parse` does."""
        path, text = cls.parse(f"{key}=").path, f"{key}={value}"
        check_values(value, lambda _: named(text), path)
        return cls(path, plain(value), text)


def _is_index(step: str) -> bool:
    return step.isdecimal() and step.isascii() and len(step) <= len(str(MOST_VALUES))


def shipped(kind: str) -> Path:
    """The folder of the definitions that come with the package (in a checkout: the top-level folders themselves)."""
    installed = Path(str(files("secateur"))) / "shipped" / kind
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / kind


def project_root(pipeline: Path) -> Path:
    """The folder that holds `pipelines/` and `evaluators/`; the file's own folder where it does not lie in one of them.

    What is shipped belongs to no project: its root is the working directory.
    """
    folder = pipeline.resolve().parent
    kind = folder.name
    if kind not in ("pipelines", "evaluators"):
        return folder
    if folder == shipped(kind).resolve() and (Path.cwd() / kind).resolve() != folder:
        return Path.cwd()
    return folder.parent


def load_pipeline(
    reference: str, overrides: list[Override] | None = None, project: Path | None = None
) -> tuple[PipelineDefinition, Path]:
    """A validated pipeline and its project's root. reference: a name (`quick`) or a path to a YAML file.

    project: the root; by default the folder that `project_root` finds. Raises DefinitionError naming file, line, what is allowed
    and the nearest match.
    """
    path, root = _located(reference, "pipelines", project)
    return _pipeline(Source.read(path), overrides or [], root), root


def pipeline_from(tree: Mapping[str, Any], overrides: list[Override], root: Path) -> PipelineDefinition:
    """A validated pipeline from the mapping that a YAML file would hold; names in it are looked up in `root`, the project.

    Raises DefinitionError as `load_pipeline` does, with `definition` in the place of file and line.
    """
    return _pipeline(Source.of(tree, "definition"), overrides, root)


def _pipeline(read: Source, overrides: list[Override], root: Path) -> PipelineDefinition:
    source = _overridden(read, overrides, root)
    values = source.plain()
    if isinstance(values.get("workload"), str):
        values["workload"] = {"factory": values["workload"]}
    for key, model in (("search_space", SearchSpaceDefinition), ("evaluator", EvaluatorDefinition)):
        if key in values:
            values[key] = _referenced(values[key], key, model, source, root)
    return _validated(PipelineDefinition, values, source)


def load_evaluator(reference: str, project: Path | None = None) -> tuple[EvaluatorDefinition, Path]:
    """A validated evaluator and its project's root. reference: a name (`raspberry_pi`) or a path to a YAML file.

    Raises DefinitionError as `load_pipeline` does.
    """
    path, root = _located(reference, "evaluators", project)
    source = Source.read(path)
    return _validated(EvaluatorDefinition, source.plain(), source), root


def _located(reference: str, kind: str, project: Path | None) -> tuple[Path, Path]:
    """The file that a person names on the command line, and its project. Paths are relative to the working directory."""
    is_path = reference.endswith((".yaml", ".yml")) or "/" in reference
    path = _find(reference, kind, Path.cwd() if project is None or is_path else project, where="")
    return path, project_root(path) if project is None else project.resolve()


def _find(reference: str, kind: str, root: Path, where: str) -> Path:
    if reference.endswith((".yaml", ".yml")) or "/" in reference:
        path = root / _expanded_user(reference)
        if _is_file(path):
            return path
        raise DefinitionError(f"{where}there is no file '{_shortened(reference)}' (looked at {_shortened(str(path))}).")
    folders = (root / kind, shipped(kind))
    for folder in folders:
        if _is_file(folder / f"{reference}.yaml"):
            return folder / f"{reference}.yaml"
    known = sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})
    reference = _shortened(reference)
    raise DefinitionError(
        f"{where}there is no '{reference}' in {kind}/.{nearest(reference, known)} There are: {', '.join(known)}. "
        "A path to a YAML file works as well."
    )


def _expanded_user(reference: str) -> Path:
    try:
        return Path(reference).expanduser()
    except RuntimeError:  # `~somebody` who is not there
        return Path(reference)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a folder that must not be looked into
        return False


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "…"  # some lines' worth


def _referenced(value: Any, key: str, model: type[D], source: Source, root: Path) -> D:
    """A part given by name, by path, or written inline."""
    if isinstance(value, str):
        inner = Source.read(_find(value, _REFERENCES[key,], root, where=f"{source.where((key,))}: "))
        return _validated(model, inner.plain(), inner)
    if not isinstance(value, dict):
        raise DefinitionError(
            f"{source.where((key,))}: '{key}' is {shown(value)}; it must be a name in {_REFERENCES[key,]}/, a path to a YAML "
            "file, or a mapping of keys to values."
        )
    try:
        part = model.model_validate(value)
    except ValidationError as error:
        raise source.part(key).explain(error, model) from error
    part.placed(source, (key,))
    return part


def _validated(model: type[D], values: Any, source: Source) -> D:
    try:
        definition = model.model_validate(values)
    except ValidationError as error:
        raise source.explain(error, model) from error
    definition.placed(source, ())
    return definition


def _overridden(source: Source, overrides: list[Override], root: Path) -> Source:
    """Put the overrides into the tree. A reference that is a bare name is first replaced by what it names."""
    texts, labels = dict(source.overrides), dict(source.labels)
    for override in overrides:
        node = source.tree
        *parents, last = override.path
        for depth, step in enumerate(parents):
            here = override.path[: depth + 1]
            child = node.get(step) if isinstance(node, dict) else node[_index(node, step, override)]
            if here == ("workload",) and isinstance(child, str):
                child = {"factory": child}
            elif here in _REFERENCES and isinstance(child, str):
                referenced = Source.read(_find(child, _REFERENCES[here], root, where=f"{source.where(here)}: "))
                child, labels[here] = referenced.tree, referenced.label
            elif child is None:
                child = {}
            if not isinstance(child, (dict, list)):
                raise DefinitionError(
                    f"{named(override.text)}: '{'.'.join(map(str, here))}' is a single value and has no key "
                    f"'{override.path[depth + 1]}'."
                )
            child = copy.deepcopy(child)  # an anchor may share it with another part
            node[step] = child
            node = child
        node[last if isinstance(node, dict) else _index(node, last, override)] = override.value
        texts[override.path] = override.text
    return Source(source.label, source.tree, texts, labels)


def _index(node: Any, step: str | int, override: Override) -> int:
    if not isinstance(step, int) or not 0 <= step < len(node):
        raise DefinitionError(
            f"{named(override.text)}: a list of {len(node)} is indexed by 0 … {len(node) - 1}, not {shown(step)}."
        )
    return step
