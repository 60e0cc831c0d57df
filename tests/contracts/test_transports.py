"""What every way to a device promises. A new one passes by being opened here."""

from __future__ import annotations

import hashlib
import shlex
import sys

import pytest

from secateur.errors import DeviceRefused
from secateur.evaluators.devices.adb import AdbTransport
from secateur.evaluators.devices.bundle import bundle
from secateur.evaluators.devices.local import LocalTransport
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.ssh import Login, SshTransport
from secateur.evaluators.devices.work import Setup
from secateur.testing import DeviceContract
from ssh_server import ssh_server
from transports import adb_stub
from unit.evaluators.devices.test_agent import WORK

KINDS = ("local", "ssh", "adb")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("board") / "ssh") as running:
        yield running


@pytest.fixture(params=KINDS)
def opened(request, tmp_path):
    if request.param == "ssh":
        server = request.getfixturevalue("server")
        folder = server.folder
        made = SshTransport(Login("root@127.0.0.1", server.port, folder / "user", folder / "known_hosts", 5.0, 0.5))
    elif request.param == "adb":
        made = AdbTransport("R58", adb_stub(tmp_path))
    else:
        made = LocalTransport(tmp_path)
    yield made
    made.close()


class TestTransports(DeviceContract):
    python = shlex.quote(sys.executable)

    @pytest.fixture
    def transport(self, opened):
        return opened


def planted(folder, marker):
    """A program of somebody else's in the agent's place, that would leave a mark."""
    folder.mkdir(mode=0o700, parents=True)
    place = folder / f"agent-{bundle().sha256[:12]}.pyz"
    place.write_text(f"open({str(marker)!r}, 'w')\n")
    return place


def device_over(transport, folder):
    setup = Setup("onnxruntime", "onnx", python=shlex.quote(sys.executable), folder=str(folder))
    return Device(transport, setup, wait=lambda _: None)


def test_what_lies_in_the_agents_place_is_not_run_unless_it_is_the_agent(opened, tmp_path):
    place, marker = planted(tmp_path / "device", tmp_path / "ran"), tmp_path / "ran"
    device = device_over(opened, tmp_path / "device")
    assert device.hello.machine.cores > 0
    device.close()
    assert not marker.exists()
    assert hashlib.sha256(place.read_bytes()).hexdigest() == bundle().sha256, "the agent has replaced it"
    place.chmod(0o666)
    device = device_over(opened, tmp_path / "device")
    assert device.hello
    device.close()
    assert not place.stat().st_mode & 0o022, "a file that others may write is replaced, whatever it holds"


@pytest.mark.parametrize("what", ["file", "dangling link", "open to others", "below a file"])
def test_a_folder_that_may_not_be_used_is_refused_in_one_line(opened, tmp_path, what):
    folder = tmp_path / "device"
    if what == "file":
        folder.write_text("")
    elif what == "dangling link":
        folder.symlink_to(tmp_path / "nowhere")
    elif what == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.write_text("")
        folder /= "device"
    with pytest.raises(DeviceRefused, match="is no folder|may be written by others|cannot be made") as refused:
        device_over(opened, folder).measure(WORK)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_folder_that_the_agent_makes_is_private(opened, tmp_path):
    device = device_over(opened, tmp_path / "new" / "device")
    assert device.hello
    device.close()
    assert (tmp_path / "new" / "device").stat().st_mode & 0o077 == 0
