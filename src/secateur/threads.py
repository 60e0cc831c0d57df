"""How torch's threads wait for each other.

By default they spin. Where other programs use the same cores, a thread that spins keeps the one that it waits for from running:
beside busy processes a step of training (digits network, two threads, two cores) took 0.4 to 0.8 s, and 0.05 to 0.07 s where
waiting threads sleep.
"""

from __future__ import annotations

import os

POLICY, OURS = "OMP_WAIT_POLICY", "SECATEUR_WAIT_POLICY"


def sleep_while_waiting() -> None:
    """Let them sleep, in this process and those that it starts, unless the user has chosen. Must come before torch is loaded."""
    if POLICY not in os.environ:
        os.environ[POLICY] = os.environ[OURS] = "passive"


def environment_as_given() -> dict[str, str]:
    """The environment without our choice: what is measured runs as it would without us."""
    kept = dict(os.environ)
    if kept.pop(OURS, None) is not None:
        kept.pop(POLICY, None)
    return kept
