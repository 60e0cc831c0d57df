from __future__ import annotations

import os
import signal

import pytest

from secateur.cli.interrupts import Interrupts


def test_a_control_c_that_a_library_swallows_is_raised_at_the_next_look():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before
