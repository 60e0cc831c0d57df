"""From a definition to devices that can be asked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.agent.runtimes import RUNTIMES
from secateur.definition import DEVICE_KINDS, AdbDevice, DeviceDefinition, EvaluatorDefinition, LocalDevice, SshDevice
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.transport import Transport
from secateur.evaluators.devices.work import Setup
from secateur.files import private_folder

DEVICES = {
    "local": "this host, in a process of its own",
    "ssh": "boards that are reached over ssh, with a key",
    "adb": "Android devices that the Android Debug Bridge reaches",
}
"""kind → what it is."""


def open_devices(
    definition: EvaluatorDefinition, root: Path, on_event: Callable[[str], None] = lambda _: None
) -> Devices:
    """The devices that a definition names. Nothing is contacted before it is needed. root: what its paths are relative to."""
    where = definition.device
    if isinstance(where, LocalDevice):
        python, folder = shlex.quote(sys.executable), str(private_folder("local"))
    else:
        python, folder = where.python, where.folder
    setup = Setup(
        definition.runtime,
        RUNTIMES[definition.runtime].format,
        definition.threads,
        RUNTIMES[definition.runtime].chosen(definition.runtime_options),
        python,
        folder,
        definition.energy_command,
        definition.deadline,
    )
    return Devices([Device(transport, setup) for transport in _transports(where, root)], on_event)


def _transports(where: DeviceDefinition, root: Path) -> Sequence[Transport]:
    """A connection each. What a kind needs is imported only where it is asked for."""
    if where.kind in DEVICE_KINDS:
        return DEVICE_KINDS[where.kind].open(where, root)
    if isinstance(where, SshDevice):
        from secateur.evaluators.devices.ssh import Login, SshTransport  # an extra

        key = None if where.key_file is None else root / Path(where.key_file).expanduser()
        known = root / Path(where.known_hosts).expanduser()
        seconds = where.connect_seconds, where.keepalive_seconds
        return [SshTransport(Login(host, port, key, known, *seconds)) for host, port in where.addresses()]
    if isinstance(where, AdbDevice):
        from secateur.evaluators.devices.adb import AdbTransport

        return [AdbTransport(serial, where.adb) for serial in (where.serials or (None,))]
    from secateur.evaluators.devices.local import LocalTransport

    return [LocalTransport(Path.cwd())]
