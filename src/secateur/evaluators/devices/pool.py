"""Several devices of one kind: each measurement takes a free one; one that is lost or drifts is quarantined for a while."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import DeviceLost, DeviceRefused
from secateur.evaluators.devices.report import Hello
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.work import Measured, Work
from secateur.files import private_folder

DRIFTED = 0.10
"""A device whose reference has become so much slower than at its first measurement is quarantined."""
QUARANTINE = 60.0
"""Seconds for which a lost or quarantined device is not used."""
LOOK_AGAIN = 0.02
"""Seconds between two looks for a free device."""
GO_ON = (
    "Bring it back and run the same command again: whatever was finished is kept, and no trial was scored without it."
)


@dataclass
class _Slot:
    """A device with what is remembered of it. first_ms: its reference at first, by the hash of that."""

    device: Device
    lock: Path
    first_ms: dict[str, float]
    quarantined_until: float = 0.0
    why: str = ""
    checked: bool = False


class Devices:
    """A pool of devices of one kind, shared by all processes of this user: one measurement at a time on each."""

    def __init__(
        self,
        devices: Sequence[Device],
        on_event: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """on_event: told, in words, that a device was lost or quarantined."""
        folder = private_folder("locks")
        self._slots = [
            _Slot(d, folder / f"{hashlib.sha256(d.name.encode()).hexdigest()[:16]}.lock", {}) for d in devices
        ]
        self._on_event, self._clock = on_event, clock
        self._hello: Hello | None = None
        self._fingerprint = ""
        # Whoever forgets the pool, or ends, leaves no process and no connection behind.
        self._finalizer = weakref.finalize(self, _close, list(devices))

    @property
    def fingerprint(self) -> str:
        """Of the kind. Raises DeviceLost where none can be reached."""
        self._introduce()
        return self._fingerprint

    @property
    def hello(self) -> Hello:
        """What the first one that was reached says of itself."""
        return self._introduce()

    @property
    def each(self) -> list[Device]:
        """All of them, one by one: for whoever wants to prove each."""
        return [slot.device for slot in self._slots]

    def measure(self, work: Work) -> Measured:
        """On the next device that is free. Raises EvaluationFailed for the candidate's fault, DeviceLost where none is left."""
        self._introduce()
        while True:
            with self._free() as slot:
                measured = self._on(slot, work)
            if measured is not None:
                return measured

    def close(self) -> None:
        """Let all of them go."""
        _close([slot.device for slot in self._slots])

    def _introduce(self) -> Hello:
        if self._hello is None:
            for slot in self._slots:
                try:
                    self._check(slot)
                    break
                except DeviceRefused:
                    raise
                except DeviceLost as error:
                    self._quarantine(slot, str(error))
            else:
                raise self._none_left()
        assert self._hello is not None  # noqa: S101 # one was reached
        return self._hello

    def _check(self, slot: _Slot) -> None:
        """That it is of the kind of the others."""
        fingerprint = slot.device.fingerprint
        if self._hello is None:
            self._hello, self._fingerprint = slot.device.hello, fingerprint
        elif fingerprint != self._fingerprint:
            raise DeviceRefused(
                f"{slot.device.name} is another kind of device than {self._slots[0].device.name}: '{fingerprint}' and "
                f"'{self._fingerprint}'. Their figures do not compare: give each kind an evaluator of its own."
            )
        slot.checked = True

    def _on(self, slot: _Slot, work: Work) -> Measured | None:
        """The figures, or None where this device may not give them and another one may."""
        try:
            if not slot.checked:
                self._check(slot)
            measured = slot.device.measure(work)
        except DeviceRefused:
            raise
        except DeviceLost as error:
            self._quarantine(slot, str(error))
            if not self._usable():
                raise self._none_left() from error
            return None
        if measured.report is None:
            return measured
        reference = hashlib.sha256(work.reference).hexdigest()
        first = slot.first_ms.setdefault(reference, measured.report.reference_ms.min)
        slowed = measured.report.reference_ms.min / first - 1
        if slowed <= DRIFTED or len(self._usable()) == 1:
            return measured  # alone it goes on: its ratios are still fair, and the report says how it drifted
        self._quarantine(slot, f"{slot.device.name}: its reference takes {slowed:.0%} longer than at first.")
        return None

    def _quarantine(self, slot: _Slot, why: str) -> None:
        slot.quarantined_until, slot.why = self._clock() + QUARANTINE, why
        self._on_event(f"{why} Not used for {QUARANTINE:g} s.")

    def _usable(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.quarantined_until <= self._clock()]

    def _none_left(self) -> DeviceLost:
        return DeviceLost(f"{' '.join(slot.why for slot in self._slots if slot.why)} {GO_ON}")

    @contextlib.contextmanager
    def _free(self) -> Iterator[_Slot]:
        """One that nobody else is measuring on; waits for it."""
        turn = os.getpid()  # different processes look in a different order
        while True:
            usable = self._usable()
            if not usable:
                raise self._none_left()
            for i in range(len(usable)):
                slot = usable[(turn + i) % len(usable)]
                with slot.lock.open("w") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    yield slot
                    return
            time.sleep(LOOK_AGAIN)


def _close(devices: Sequence[Device]) -> None:
    for device in devices:
        device.close()
