"""What adb says when something is wrong, and what we make of it. The replayed words are those of adb 1.0.41, from its documentation
and its users' reports: no phone was at hand.
"""

from __future__ import annotations

import sys

import pytest

from secateur.errors import DeviceLost, DeviceRefused
from secateur.evaluators.devices.adb import AdbTransport
from transports import adb_stub, script

REPLAY = """#!{python}
import sys
assert sys.argv[1:4] == ["-s", "R58", "shell"], sys.argv
sys.stderr.write({said!r})
sys.exit(1)
"""


def replaying(folder, said):
    return AdbTransport("R58", script(folder / "adb", REPLAY.format(python=sys.executable, said=said)))


@pytest.mark.parametrize(
    ("said", "error", "meant"),
    [
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n", DeviceRefused, "unlock it and confirm"),
        ("error: device offline\n", DeviceLost, "R58 is offline: unplug it"),
        ("error: device 'R58' not found\n", DeviceLost, "R58 is not connected"),
        ("error: no devices/emulators found\n", DeviceLost, "is not connected"),
        ("error: more than one device/emulator\n", DeviceRefused, "name those to use by `serials`"),
        ("mkdir: '/data/x': No space left on device\n", DeviceLost, "R58 is full"),
        ("mkdir: '/data/x': Permission denied\n", DeviceRefused, "below /data/local/tmp"),
        ("sh: timeout: inaccessible or not found\n", DeviceLost, "sh: timeout"),
    ],
)  # fmt: skip
def test_troubles_are_told_apart(said, error, meant, tmp_path):
    with pytest.raises(DeviceLost, match=meant) as raised:
        replaying(tmp_path, said).put(b"x", "/data/x/y")
    assert raised.type is error
    stream = replaying(tmp_path, said).exec_stream(["true"], 5)
    with pytest.raises(error, match=meant):
        stream.receive(10)


def test_another_serial_is_not_there(tmp_path):
    with pytest.raises(DeviceLost, match="R59 is not connected"):
        AdbTransport("R59", adb_stub(tmp_path)).put(b"x", "y/z")


def test_where_there_is_no_adb_it_is_said(tmp_path):
    with pytest.raises(DeviceRefused, match="There is no 'adb-of-mine' on this host"):
        AdbTransport(None, "adb-of-mine").get("x")


def test_a_push_that_arrived_in_part_is_noticed(tmp_path):
    stub = adb_stub(tmp_path)
    text = (
        (tmp_path / "adb")
        .read_text()
        .replace("shutil.copy(words[1], words[2])", "open(words[2], 'wb').write(b'xy')", 1)
    )
    script(tmp_path / "adb", text)
    with pytest.raises(DeviceLost, match=r"did not arrive whole \(2 of 5 bytes\)"):
        AdbTransport("R58", stub).put(b"xyzzy", "there/model.onnx")
    assert not (tmp_path / "phone" / "there" / "model.onnx").exists()
