from __future__ import annotations

import os
import sys

import pytest

from secateur import torch_environment
from secateur.evaluators.devices.local import ProcessStream
from waiting import LIMIT

NAME = "OMP_WAIT_POLICY"
SHOW = [sys.executable, "-c", f"import os; print(os.environ.get('{NAME}'), flush=True)"]


@pytest.mark.parametrize(("given", "ours", "measured"), [(None, "passive", "None"), ("active", "active", "active")])
def test_what_the_user_has_not_set_is_chosen_except_where_something_is_measured(monkeypatch, given, ours, measured):
    for name in (*torch_environment.CHOSEN, torch_environment.OURS):
        monkeypatch.setenv(name, "x")  # so that it is restored
        monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv(NAME, given)
    torch_environment.choose()
    torch_environment.choose()  # as a process does that another of ours has started
    assert os.environ[NAME] == ours
    stream = ProcessStream(SHOW)
    assert stream.receive(LIMIT) == measured
    stream.end()
