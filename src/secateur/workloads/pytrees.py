"""What a model takes and what it returns: tensors in tuples, lists, dicts and dataclasses, to any depth.

Each tensor has the batch as its first dimension. What is no tensor (None, a flag) stays as it is. Named tuples, Hugging Face's
`ModelOutput` and other subclasses of the four keep their type.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PyTree = Any
"""A tensor, a nesting of tensors, or something that is neither."""
INPUT, OUTPUT = "input", "output"
"""What `named` calls a tensor that has no name."""


def call(model: nn.Module, inputs: PyTree) -> PyTree:
    """The model's outputs: `model(**inputs)` of a dict, `model(*inputs)` of a tuple or list, `model(inputs)` of a tensor."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(inputs) if isinstance(inputs, Tensor) else model(*inputs)


def mapped(function: Callable[[Tensor], Any], tree: PyTree) -> PyTree:
    """The same nesting with something else in place of each tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    parts = _parts(tree)
    return tree if parts is None else _rebuilt(tree, {key: mapped(function, part) for key, part in parts.items()})


def tensors(tree: PyTree) -> list[Tensor]:
    """All tensors, in order."""
    return [tensor for _, tensor in _walk(tree)]


def filled(tree: PyTree, values: Sequence[Any]) -> PyTree:
    """The same nesting with other values in place of its tensors, in order."""
    left = iter(values)
    return mapped(lambda _: next(left), tree)


def named(tree: PyTree, whole: str) -> dict[str, Tensor]:
    """Tensors by name: keys and fields joined by `_`, behind `whole` where the outermost level is a sequence of several.

    A tensor alone is called `whole`. Raises ValueError where two tensors get the same name.
    """
    leaves = list(_walk(tree))
    if len(leaves) == 1 and isinstance(tree, (Tensor, tuple, list)) and not _fields(tree):
        return {whole: leaves[0][1]}
    names = ["_".join(map(str, (whole, *path) if isinstance(path[0], int) else path)) for path, _ in leaves]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two tensors are called '{twice}'")
    return {name: tensor for name, (_, tensor) in zip(names, leaves, strict=True)}


def length(tree: PyTree) -> int:
    """Samples in a batch."""
    return len(tensors(tree)[0])


def rows(tree: PyTree, chosen: slice | Tensor) -> PyTree:
    """Some samples of a batch."""
    return mapped(lambda x: x[chosen], tree)


def joined(trees: Sequence[PyTree]) -> PyTree:
    """Batches of one nesting as one batch."""
    return filled(trees[0], [torch.cat(parts) for parts in zip(*map(tensors, trees), strict=True)])


def _walk(tree: PyTree, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    for key, part in (_parts(tree) or {}).items():
        yield from _walk(part, (*path, key))


def _fields(tree: PyTree) -> tuple[str, ...]:
    """Names of the parts of a dataclass or named tuple."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return tuple(field.name for field in dataclasses.fields(tree) if field.init)
    return tuple(getattr(tree, "_fields", ())) if isinstance(tree, tuple) else ()


def _parts(tree: PyTree) -> dict[Any, PyTree] | None:
    """What a nesting consists of, by key; None where it is none."""
    if names := _fields(tree):
        return {name: getattr(tree, name) for name in names}
    if isinstance(tree, Mapping):
        return dict(tree)
    return dict(enumerate(tree)) if isinstance(tree, (tuple, list)) else None


def _rebuilt(tree: PyTree, parts: Mapping[Any, PyTree]) -> PyTree:
    if dataclasses.is_dataclass(tree):
        return dataclasses.replace(tree, **parts)  # type: ignore[type-var] # no class: it has parts
    if isinstance(tree, Mapping):
        other: Any = copy.copy(tree)
        other.update(parts)
        return other
    return type(tree)(*parts.values()) if _fields(tree) else type(tree)(parts.values())
