from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import make_workload
from secateur.compression.costs import layer_costs
from secateur.definition import RecoverDefinition
from secateur.recovery import threads
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.threads import threads_for

SETTINGS = RecoverDefinition(epochs=1, batch=32)


@pytest.fixture(autouse=True)
def _three():
    """Torch has three threads to give."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("kept_busy", "expected"), [(0.5, 1), (1.5, 1), (2.5, 2), (9.0, 3)])
def test_a_training_has_the_threads_that_its_batches_keep_busy(kept_busy, expected, monkeypatch):
    workload = make_workload(samples=200)
    teacher = workload.build_model()
    macs = layer_costs(teacher, workload.example_inputs).total * SETTINGS.batch
    monkeypatch.setattr(threads, "MACS_OF_A_THREAD", macs / kept_busy)
    had = []
    fine_tune(teacher, teacher, workload, SETTINGS, Training(on_epoch=lambda *_: had.append(torch.get_num_threads())))
    assert had == [expected]
    assert torch.get_num_threads() == 3


def test_an_interrupted_training_gives_them_back():
    with pytest.raises(KeyboardInterrupt), threads_for(nn.Linear(4, 4), (torch.ones(2, 4),), 8):
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3


def test_work_that_is_not_counted_gets_all_threads():
    with threads_for(nn.LSTM(4, 4), (torch.ones(2, 3, 4),), 8):
        assert torch.get_num_threads() == 3
