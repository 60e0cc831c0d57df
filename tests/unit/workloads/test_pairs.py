"""Batches as data sets give them, as the model takes them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from secateur.workloads.pairs import Unpaired, paired
from secateur.workloads.roles import collect
from secateur.workloads.samples import Samples, collate_of, map_style

X, Z, Y = torch.arange(6.0).view(3, 2), torch.arange(3.0), torch.tensor([0, 1, 0])
IMAGE, TWO, WORDS = (X[:1],), (X[:1], Z[:1]), {"ids": X[:1], "mask": Z[:1]}


@pytest.mark.parametrize(
    ("batch", "example", "inputs", "target"),
    [
        ((X, Y), IMAGE, (X,), Y),
        ([(X,), Y], IMAGE, (X,), Y),
        ([[X, Z], Y], TWO, (X, Z), Y),
        (({"ids": X, "mask": Z}, Y), WORDS, {"ids": X, "mask": Z}, Y),
        (({"mask": Z, "ids": X}, Y), WORDS, {"ids": X, "mask": Z}, Y),
        (({"mask": Z, "ids": X}, Y), (WORDS,), ({"ids": X, "mask": Z},), Y),
        ({"label": Y, "mask": Z, "text": ["a", "b", "c"], "ids": X}, WORDS, {"ids": X, "mask": Z}, Y),
        ({"mask": Z, "ids": X, "start": Y, "end": Z}, WORDS, {"ids": X, "mask": Z}, {"start": Y, "end": Z}),
        ([[X, Z], Y], ([X[:1], Z[:1]],), ([X, Z],), Y),
        ((X, {"boxes": X, "classes": Y}), IMAGE, (X,), {"boxes": X, "classes": Y}),
    ],
)
def test_inputs_are_nested_and_ordered_as_the_example_is(batch, example, inputs, target):
    found = paired(batch, example)
    assert repr(found) == repr((inputs, target))


@pytest.mark.parametrize(
    ("batch", "example", "words"),
    [
        (X, IMAGE, "is a Tensor; a pair"),
        ({"ids": X, "label": Y}, IMAGE, "is a dict; a pair .* or a dict of the model's inputs by their names"),
        ({"ids": X, "label": Y}, WORDS, "has no 'mask', which the model takes; it has: ids, label"),
        ({"ids": X, "mask": Z, "label": ["a"]}, WORDS, "has a dict as its target"),
        ((X, Y, Z), IMAGE, r"is a tuple of 3 \(Tensor, Tensor, Tensor\)"),
        ((["a"], Y), IMAGE, r"has a list of 1 \(str\) as its input"),
        ((X, 3), IMAGE, "has a int as its target"),
        (([X, Z], Y), IMAGE, "gives inputs input_0, input_1; example_inputs are input. A model that takes keywords"),
        ((X, Y), WORDS, "gives inputs input; example_inputs are ids, mask. The names must be"),
        ({"ids": [Z] * 9, "mask": [Z] * 9, "label": Y}, WORDS, "ids_0, .*, ids_5 and 12 others; .*with_format"),
    ],
)
def test_what_is_no_inputs_and_targets_says_what_it_is(batch, example, words):
    with pytest.raises(Unpaired, match=words):
        paired(batch, example)


class Table(Dataset):
    """A data set of columns, as Hugging Face's are: rows are dicts, several may be asked for at once."""

    def __len__(self):
        return 5

    def __getitem__(self, number):
        return {"ids": list(range(number + 1)), "label": number % 2}

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


def padded(rows):
    longest = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([row["ids"] + [0] * (longest - len(row["ids"])) for row in rows])
    lengths = torch.tensor([len(row["ids"]) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"ids": ids, "mask": mask, "labels": torch.tensor([row["label"] for row in rows])}


def test_rows_of_a_table_are_padded_by_the_users_collate_function():
    example = {"mask": torch.ones(1, 4).long(), "ids": torch.ones(1, 4).long()}
    dataset = map_style(DataLoader(Table(), batch_size=2, collate_fn=padded), "search")
    role = Samples(dataset, collate_of(dataset), "search", example)
    inputs, labels = collect(role)
    assert list(inputs) == ["mask", "ids"]
    assert inputs["ids"][1].tolist() == [0, 1, 0, 0, 0]
    assert inputs["mask"].sum(1).tolist() == [1, 2, 3, 4, 5]
    assert labels.tolist() == [0, 1, 0, 1, 0]
