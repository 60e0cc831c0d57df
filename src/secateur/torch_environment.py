"""What torch reads from the environment when it is loaded: how its threads wait, and where large tensors lie.

By default threads spin. Where other programs use the same cores, a thread that spins keeps the one that it waits for from running:
beside busy processes a step of training (digits network, two threads, two cores) took 0.4 to 0.8 s, and 0.05 to 0.07 s where
waiting threads sleep.

By default a tensor lies at a multiple of 64 bytes, and glibc before 2.38 does not give the room of one that has gone to the next of
the same size: after 64 images in portions (ResNet-50) 1.2 GB lay idle. At multiples of a huge page 0.2 GB do, in the same time.
"""

from __future__ import annotations

import os

CHOSEN = {"OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}
OURS = "SECATEUR_CHOSEN"
"""Names those that the user has not set, for the processes that we start."""


def choose() -> None:
    """Set them in this process and those that it starts, unless the user has. Must come before torch is loaded."""
    ours = [name for name in CHOSEN if name not in os.environ]
    os.environ.update({name: CHOSEN[name] for name in ours})
    if ours:
        os.environ[OURS] = " ".join(ours)


def environment_as_given() -> dict[str, str]:
    """The environment without our choices: what is measured runs as it would without us."""
    kept = dict(os.environ)
    for name in kept.pop(OURS, "").split():
        kept.pop(name, None)
    return kept
