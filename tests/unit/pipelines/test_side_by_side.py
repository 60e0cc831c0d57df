"""Finalists in worker processes, with a pool that does nothing: how many at a time, and what becomes of one whose worker dies."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from conftest import make_workload
from secateur.definition import RecoverDefinition
from secateur.execution import Trained
from secateur.pipelines import side_by_side
from secateur.pipelines.side_by_side import Training, at_once, threads_of, trained
from secateur.records import Candidate, Recovered

DIED = Trained("by signal 9", died=True)


class Pool:
    """Ends trainings in the order in which they were begun. answers: name → how, one after the other."""

    def __init__(self, **answers):
        self.answers, self.under_way, self.seen = answers, [], []

    def submit(self, number, job, on_epoch):
        self.under_way.append((number, job.finalist.name))
        self.seen.append([name for _, name in self.under_way])
        on_epoch(1, 0.5)

    def trained(self):
        number, name = self.under_way.pop(0)
        return number, self.answers.get(name, [Trained()]).pop(0)


def training(name, told=lambda *_: None):
    return Training(Recovered(name, 1, Candidate({}), {}, {}, name, 0, 0.0), told)


def ended(pool, at_once, count=4):
    found = trained(pool, [training(f"f{n}") for n in range(count)], at_once, threads=1)
    return [(finalist.name, failure) for finalist, failure in found]


def test_so_many_at_a_time_and_the_next_where_one_is_over():
    pool = Pool()
    assert ended(pool, 2) == [(f"f{n}", None) for n in range(4)]
    assert pool.seen == [["f0"], ["f0", "f1"], ["f1", "f2"], ["f2", "f3"]]


def test_one_whose_worker_died_is_trained_again_alone_when_the_others_are_done():
    pool = Pool(f0=[DIED, Trained()], f1=[Trained("the loss is lost")])
    assert ended(pool, 2) == [("f1", "the loss is lost"), ("f2", None), ("f3", None), ("f0", None)]
    assert pool.seen[-1] == ["f0"]


def test_one_whose_worker_dies_twice_fails_and_others_that_died_have_their_turn():
    pool = Pool(f0=[DIED, DIED], f1=[DIED, Trained()])
    (first, why), *others = [pair for pair in ended(pool, 3, 3) if pair[0] != "f2"]
    assert first == "f0"
    assert why.startswith(
        "the process that trained it died, by signal 9; then again, with nothing beside it, by signal 9. "
    )
    assert others == [("f1", None)]
    assert pool.seen[-2:] == [["f0"], ["f1"]]


@pytest.mark.parametrize(("free", "fitting"), [(100, 1), (1000, 1), (2500, 2), (9000, 4), (None, 4)])
def test_as_many_as_memory_has_room_for_and_a_warning_where_that_is_not_all(monkeypatch, caplog, free, fitting):
    workload = make_workload()
    monkeypatch.setattr(side_by_side, "left", lambda: free)
    monkeypatch.setattr(side_by_side, "training_bytes", lambda *_: 1000)
    definition = SimpleNamespace(recover=RecoverDefinition())
    with caplog.at_level(logging.WARNING, "secateur"):
        assert at_once(SimpleNamespace(definition=definition, workload=workload, model=None), 4) == fitting
    assert [f"{fitting} at a time in place of 4" in text for text in caplog.messages] == [True] * (fitting < 4)


def test_threads_are_shared(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [threads_of(count) for count in (2, 3, 8, 9)] == [4, 2, 1, 1]
