"""Nested tensors: what a model takes and what it returns."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from secateur.workloads.pytrees import call, filled, joined, length, mapped, named, rows, tensors


@dataclass
class Output:
    """As libraries return it: named tensors, some of which are absent."""

    logits: Tensor
    loss: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()


class Pair(NamedTuple):
    left: Tensor
    right: Any


def ramp(start):
    return torch.arange(start, start + 6.0).view(3, 2)


NESTINGS = {
    "tensor": (ramp(0), {"x": ramp(0)}),
    "tuple of one": ((ramp(0),), {"x": ramp(0)}),
    "tuple": ((ramp(0), ramp(9)), {"x_0": ramp(0), "x_1": ramp(9)}),
    "list in tuple": (([ramp(0)], ramp(9)), {"x_0_0": ramp(0), "x_1": ramp(9)}),
    "dict": ({"ids": ramp(0), "mask": ramp(9)}, {"ids": ramp(0), "mask": ramp(9)}),
    "ordered dict of dicts": (
        OrderedDict(boxes={"xy": ramp(1)}, label=ramp(2)),
        {"boxes_xy": ramp(1), "label": ramp(2)},
    ),
    "dataclass": (
        Output(ramp(0), None, (ramp(3), ramp(6))),
        {"logits": ramp(0), "hidden_0": ramp(3), "hidden_1": ramp(6)},
    ),
    "named tuple": (Pair(ramp(0), {"flag": True, "at": ramp(1)}), {"left": ramp(0), "right_at": ramp(1)}),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_tensors_have_names_and_the_nesting_stays(nesting):
    tree, names = NESTINGS[nesting]
    found = named(tree, "x")
    assert list(found) == list(names)
    assert all(torch.equal(found[name], names[name]) for name in names)
    doubled = mapped(lambda x: 2 * x, tree)
    assert type(doubled) is type(tree)
    assert list(named(doubled, "x")) == list(names)
    assert all(torch.equal(two, 2 * one) for one, two in zip(tensors(tree), tensors(doubled), strict=True))
    back = filled(doubled, tensors(tree))
    assert all(one is two for one, two in zip(tensors(tree), tensors(back), strict=True))


@pytest.mark.parametrize("nesting", NESTINGS)
def test_batches_are_divided_and_joined(nesting):
    tree, _ = NESTINGS[nesting]
    assert length(tree) == 3
    first, rest = rows(tree, slice(1)), rows(tree, torch.tensor([1, 2]))
    assert (length(first), length(rest)) == (1, 2)
    assert all(torch.equal(a, b) for a, b in zip(tensors(joined([first, rest])), tensors(tree), strict=True))


def test_what_is_no_tensor_stays():
    kept = mapped(torch.neg, Output(ramp(0), None, ()))
    assert kept.loss is None
    assert mapped(torch.neg, {"flag": True, "x": ramp(0)})["flag"] is True


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'a_b'"):
        named({"a_b": ramp(0), "a": {"b": ramp(1)}}, "x")


def test_tuples_are_arguments_and_dicts_are_keyword_arguments():
    class Difference(nn.Module):
        def forward(self, one, two=0):
            return one - two

    model = Difference()
    assert torch.equal(call(model, (ramp(5), ramp(1))), torch.full((3, 2), 4.0))
    assert torch.equal(call(model, {"two": ramp(5), "one": ramp(1)}), torch.full((3, 2), -4.0))
    assert torch.equal(call(model, ramp(1)), ramp(1))
