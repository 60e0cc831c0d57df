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
from secateur.evaluators.devices.session import Device, Measured, Work
from secateur.files import private_folder

DRIFTED = 0.10
"""A device whose reference has become so much slower than at its first measurement is benched."""
REST = 60.0
"""Seconds for which a lost or benched device is not used."""
LOOK_AGAIN = 0.02
"""Seconds between two looks for a free device."""
GO_ON = (
    "Bring it back and run the same command again: whatever was finished is kept, and no trial was scored without it."
)


@dataclass
class _Seat:
    """A device with what is remembered of it. first_ms: its reference at first, by the hash of that."""

    device: Device
    lock: Path
    first_ms: dict[str, float]
    resting_until: float = 0.0
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
        """on_event: told, in words, that a device was lost or benched."""
        folder = private_folder("locks")
        self._seats = [
            _Seat(d, folder / f"{hashlib.sha256(d.name.encode()).hexdigest()[:16]}.lock", {}) for d in devices
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
        return [seat.device for seat in self._seats]

    def measure(self, work: Work) -> Measured:
        """On the next device that is free. Raises EvaluationFailed for the candidate's fault, DeviceLost where none is left."""
        self._introduce()
        while True:
            with self._free() as seat:
                found = self._on(seat, work)
            if found is not None:
                return found

    def close(self) -> None:
        """Let all of them go."""
        _close([seat.device for seat in self._seats])

    def _introduce(self) -> Hello:
        if self._hello is None:
            for seat in self._seats:
                try:
                    self._check(seat)
                    break
                except DeviceRefused:
                    raise
                except DeviceLost as error:
                    self._rest(seat, str(error))
            else:
                raise self._nobody()
        assert self._hello is not None  # noqa: S101 # one was reached
        return self._hello

    def _check(self, seat: _Seat) -> None:
        """That it is of the kind of the others."""
        fingerprint = seat.device.fingerprint
        if self._hello is None:
            self._hello, self._fingerprint = seat.device.hello, fingerprint
        elif fingerprint != self._fingerprint:
            raise DeviceRefused(
                f"{seat.device.name} is another kind of device than {self._seats[0].device.name}: '{fingerprint}' and "
                f"'{self._fingerprint}'. Their figures do not compare: give each kind an evaluator of its own."
            )
        seat.checked = True

    def _on(self, seat: _Seat, work: Work) -> Measured | None:
        """The figures, or None where this device may not give them and another one may."""
        try:
            if not seat.checked:
                self._check(seat)
            found = seat.device.measure(work)
        except DeviceRefused:
            raise
        except DeviceLost as error:
            self._rest(seat, str(error))
            if not self._awake():
                raise self._nobody() from error
            return None
        if found.report is None:
            return found
        reference = hashlib.sha256(work.reference).hexdigest()
        first = seat.first_ms.setdefault(reference, found.report.reference_ms.min)
        slowed = found.report.reference_ms.min / first - 1
        if slowed <= DRIFTED or len(self._awake()) == 1:
            return found  # alone it goes on: its ratios are still fair, and the report says how it drifted
        self._rest(seat, f"{seat.device.name}: its reference takes {slowed:.0%} longer than at first.")
        return None

    def _rest(self, seat: _Seat, why: str) -> None:
        seat.resting_until, seat.why = self._clock() + REST, why
        self._on_event(f"{why} Not used for {REST:g} s.")

    def _awake(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.resting_until <= self._clock()]

    def _nobody(self) -> DeviceLost:
        return DeviceLost(f"{' '.join(seat.why for seat in self._seats if seat.why)} {GO_ON}")

    @contextlib.contextmanager
    def _free(self) -> Iterator[_Seat]:
        """One that nobody else is measuring on; waits for it."""
        turn = os.getpid()  # different processes look in a different order
        while True:
            awake = self._awake()
            if not awake:
                raise self._nobody()
            for i in range(len(awake)):
                seat = awake[(turn + i) % len(awake)]
                with seat.lock.open("w") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    yield seat
                    return
            time.sleep(LOOK_AGAIN)


def _close(devices: Sequence[Device]) -> None:
    for device in devices:
        device.close()
