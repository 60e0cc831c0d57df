from __future__ import annotations

import signal

import pytest

from secateur.cli.interrupts import TOGETHER, Interrupts, stopping


def test_a_control_c_that_a_library_swallows_is_raised_at_the_next_look():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(
                signal.SIGINT
            )  # to this very thread: with os.kill another one may get it, and this one too late
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_that_comes_directly_and_is_passed_on_besides_is_one():
    now = 0.0
    with stopping(None, clock=lambda: now) as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # what is being tidied up is not disturbed
        now = 2 * TOGETHER
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert stop.reason == "SIGTERM"
