from __future__ import annotations

import os
import sys

import pytest

from secateur import threads
from secateur.evaluators.devices.local import ProcessStream
from waiting import LIMIT

SHOW = [sys.executable, "-c", "import os; print(os.environ.get('OMP_WAIT_POLICY'), flush=True)"]


@pytest.mark.parametrize(("given", "ours", "measured"), [(None, "passive", "None"), ("active", "active", "active")])
def test_waiting_threads_sleep_except_where_something_is_measured(monkeypatch, given, ours, measured):
    monkeypatch.delenv(threads.OURS, raising=False)
    monkeypatch.setenv(threads.POLICY, "x")  # so that it is restored
    if given is None:
        monkeypatch.delenv(threads.POLICY)
    else:
        monkeypatch.setenv(threads.POLICY, given)
    threads.sleep_while_waiting()
    assert os.environ[threads.POLICY] == ours
    stream = ProcessStream(SHOW)
    assert stream.receive(LIMIT) == measured
    stream.end()
    os.environ.pop(threads.OURS, None)
