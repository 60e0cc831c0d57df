"""From what a collate function gives to inputs and targets, as the workload's example inputs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from secateur.workloads.pytrees import INPUT, PyTree, filled, named, tensors

NEEDED = (
    "a pair (input, target) is needed: tensors, or tensors in tuples and dicts; or a dict of the model's inputs by their names in "
    "example_inputs, with the target beside them"
)


SHOWN = 6
"""Names that a message lists."""


class Unpaired(Exception):
    """A batch is no inputs and targets, and what it is instead (the end of a sentence)."""


def paired(batch: Any, example_inputs: PyTree) -> tuple[PyTree, PyTree]:
    """Inputs, nested and ordered as the example inputs are, and targets; all tensors (n, …).

    batch: a pair; or a dict that holds the example's keys, where other tensors in it are the target: one of them as it is, several
    as a dict. Raises Unpaired.
    """
    if isinstance(batch, Mapping) and isinstance(example_inputs, Mapping):
        if missing := [key for key in example_inputs if key not in batch]:
            raise Unpaired(f"has no '{missing[0]}', which the model takes; it has: {', '.join(map(str, batch))}")
        beside = {k: x for k, x in batch.items() if k not in example_inputs and isinstance(x, Tensor)}
        target = next(iter(beside.values())) if len(beside) == 1 else beside
        return _nested({key: batch[key] for key in example_inputs}, example_inputs), _checked(target)
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:  # a pair
        raise Unpaired(f"is {_kind(batch)}; {NEEDED}")
    given, target = batch
    return _nested(given, example_inputs), _checked(target)


def arguments(given: PyTree) -> PyTree:
    """What a model is called with, where no example says it: a tensor is the only argument, a sequence all of them."""
    if isinstance(given, Tensor):
        return (given,)
    return tuple(given) if isinstance(given, list) else given


def _nested(given: PyTree, example_inputs: PyTree) -> PyTree:
    """Inputs in the nesting of the example's."""
    if not tensors(given):
        raise Unpaired(f"has {_kind(given)} as its input; {NEEDED}")
    wanted = named(example_inputs, INPUT)
    for one in (given, (given,)):
        inputs = named(arguments(one), INPUT)
        if inputs.keys() == wanted.keys():
            return filled(example_inputs, [inputs[name] for name in wanted])
    there = [*named(arguments(given), INPUT)]
    listed = ", ".join(there[:SHOWN]) + ("" if len(there) <= SHOWN else f" and {len(there) - SHOWN} others")
    raise Unpaired(
        f"gives inputs {listed}; example_inputs are {', '.join(wanted)}. {_hint(len(there), example_inputs)}"
    )


def _hint(count: int, example_inputs: PyTree) -> str:
    if not isinstance(example_inputs, Mapping):
        return "A model that takes keywords needs a dict of them there"
    if count > len(tensors(example_inputs)):
        return "Rows of numbers in lists become tensors by with_format('torch') of the table, or by a collate function"
    return "The names must be those that forward() takes"


def _checked(target: PyTree) -> PyTree:
    leaves = tensors(target)
    if not leaves or not all(x.dim() for x in leaves):
        raise Unpaired(f"has {_kind(target)} as its target; {NEEDED}")
    return target


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        inner = ", ".join(type(one).__name__ for one in value)
        return f"a {type(value).__name__} of {len(value)} ({inner})" if value else f"an empty {type(value).__name__}"
    return f"a {type(value).__name__}"
