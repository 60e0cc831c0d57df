from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.errors import WorkloadError
from secateur.records import ROLES, DataRoles
from secateur.workloads.roles import check_calibration, check_roles, collect, drawn, split_roles


def numbered(count, start=0):
    values = torch.arange(start, start + count, dtype=torch.float32)[:, None]
    return TensorDataset(values, values[:, 0].long())


def members(dataset):
    return {int(dataset[i][1]) for i in range(len(dataset))}


@given(st.integers(400, 3000), st.integers(0, 5))
def test_derived_roles_are_disjoint_and_lose_nothing(count, seed):
    roles = split_roles(numbered(count), seed=seed)
    parts = [members(getattr(roles, role)) for role in ROLES]
    assert sum(map(len, parts)) == count
    assert set.union(*parts) == set(range(count))
    check_roles(roles)


def test_the_documented_shares():
    roles = split_roles(numbered(40_000))
    sizes = {role: len(getattr(roles, role)) for role in ROLES}
    assert sizes == {"test": 6000, "selection": 4000, "search": 2000, "calibration": 512, "train": 27488}


def test_the_split_is_seeded():
    first, same, other = (split_roles(numbered(1000), seed=s) for s in (1, 1, 2))
    assert members(first.test) == members(same.test)
    assert members(first.test) != members(other.test)


def test_given_roles_stand():
    test = numbered(50, start=5000)
    roles = split_roles(numbered(1000), test=test)
    assert roles.test is test
    assert len(roles.selection) == 100


def test_too_little_to_split_and_unknown_roles():
    with pytest.raises(WorkloadError, match="100 training samples are too few"):
        split_roles(numbered(100))
    with pytest.raises(WorkloadError, match="There is no data role 'validation'"):
        split_roles(numbered(1000), validation=numbered(3))


def roles(**changes):
    parts = {role: numbered(20, start=100 * i) for i, role in enumerate(ROLES)}
    return DataRoles(**(parts | changes))


def test_overlap_by_content_is_found():
    with pytest.raises(WorkloadError, match="'train' and 'test' share 20 samples"):
        check_roles(roles(test=numbered(30)))
    with pytest.raises(WorkloadError, match="'search' and 'selection' share 5 samples"):
        check_roles(roles(search=numbered(20, start=315)))


class Decoded(Dataset):
    """Samples that are computed on access: content cannot be compared, indices can."""

    def __len__(self):
        return 100

    def __getitem__(self, i):
        return torch.tensor([float(i)]), torch.tensor(i)


def test_overlap_by_index_is_found_through_nested_subsets():
    whole = Decoded()
    odd = Subset(whole, range(1, 100, 2))
    with pytest.raises(WorkloadError, match="'train' and 'search' share 5 samples"):
        check_roles(
            roles(train=Subset(whole, range(20)), search=Subset(odd, range(5, 10)), test=Subset(whole, [50, 52]))
        )
    check_roles(roles(train=Subset(whole, range(20)), search=Subset(odd, range(20, 30))))


@pytest.mark.parametrize("role", ["selection", "test"])
def test_one_sample_has_no_interval(role):
    roles = split_roles(numbered(1000), **{role: numbered(1, start=5000)})
    with pytest.raises(WorkloadError, match=f"'{role}' has one sample"):
        check_roles(roles)


def test_calibration_may_be_a_part_of_train_and_nothing_may_be_empty():
    check_roles(roles(calibration=numbered(5)))
    with pytest.raises(WorkloadError, match="'selection' is empty"):
        check_roles(roles(selection=Subset(numbered(5), [])))


def test_collect_takes_one_input_or_several():
    (x,), y = collect(numbered(10))
    assert x.shape == (10, 1)
    assert y.tolist() == list(range(10))

    class Two(Decoded):
        def __getitem__(self, i):
            return (torch.tensor([float(i)]), torch.tensor([i, i])), torch.tensor(i)

    (a, b), _ = collect(Two(), 3)
    assert a.shape == (3, 1)
    assert b.shape == (3, 2)


def by_class(count=1000, classes=10):
    """A folder of images as ImageFolder reads it: one class after the other."""
    labels = torch.arange(count) * classes // count
    return TensorDataset(torch.zeros(count, 1), labels)


def test_a_part_of_sorted_data_stands_for_all_of_it():
    _, labels = collect(by_class(), 100)
    assert torch.bincount(labels, minlength=10).min() >= 3
    (_, few), (_, more), (_, all_of_them) = (collect(numbered(1000), n) for n in (64, 256, 5000))
    assert few.tolist() == more.tolist()[:64] == all_of_them.tolist()[:64]
    assert sorted(all_of_them.tolist()) == list(range(1000))


def test_every_process_draws_the_same_samples():
    """Whatever its own random numbers are: so the numbers stand here."""
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 # what a user's code may do
    assert list(drawn(numbered(1000), 8).indices) == [459, 206, 222, 162, 711, 814, 350, 890]


def labelled(*labels):
    return TensorDataset(torch.arange(len(labels)).float()[:, None], torch.tensor(labels))


def test_calibration_of_one_class_is_refused():
    mixed = by_class()
    sorted_out = roles(train=mixed, search=mixed, calibration=Subset(mixed, range(64)))
    with pytest.raises(WorkloadError, match="'calibration' holds one class only \\(0, in all of its 64"):
        check_calibration(sorted_out)
    check_calibration(roles(train=mixed, search=mixed, calibration=drawn(mixed, 64)))


def test_a_draw_that_missed_a_rare_class_by_chance_is_not_refused():
    rare = labelled(*[0] * 990, *[1] * 10)
    check_calibration(roles(train=rare, search=rare, calibration=labelled(*[0] * 64)))
    check_calibration(roles(train=labelled(0, 1), search=labelled(1, 0), calibration=labelled(1)))


def test_targets_that_are_no_classes_say_nothing_about_classes():
    numbers = TensorDataset(torch.zeros(64, 1), torch.zeros(64))
    masks = TensorDataset(torch.zeros(64, 1), torch.zeros(64, 4, 4).long())
    for targets in (numbers, masks):
        check_calibration(roles(train=by_class(), search=by_class(), calibration=targets))
