"""What every way to a device promises. A new one passes by being opened here."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys

import pytest

from secateur.errors import DeviceRefused
from secateur.evaluators.devices.adb import AdbTransport
from secateur.evaluators.devices.bundle import bundle
from secateur.evaluators.devices.local import LocalTransport
from secateur.evaluators.devices.session import Device, Setup
from secateur.evaluators.devices.ssh import Login, SshTransport
from ssh_server import ssh_server
from transports import adb_stub, gone
from unit.evaluators.devices.test_agent import WORK

KINDS = ("local", "ssh", "adb")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("board") / "ssh") as running:
        yield running


@pytest.fixture(params=KINDS)
def transport(request, tmp_path):
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


def test_files_go_there_and_come_back_whole(transport, tmp_path):
    content = os.urandom(3_000_000)
    path = f"{tmp_path}/new folder/model.onnx"
    transport.put(content, path)
    assert transport.get(path) == content
    assert [f.name for f in (tmp_path / "new folder").iterdir()] == ["model.onnx"]
    transport.put(b"another", path)
    assert transport.get(path) == b"another"
    with pytest.raises(FileNotFoundError):
        transport.get(f"{tmp_path}/nothing")


def test_words_arrive_as_they_are(transport):
    odd = ["a b", "$HOME", "'q'", "*", "ä;|&"]
    stream = transport.exec_stream(["printf", "%s\\n", *odd], 20)
    assert [stream.receive(5) for _ in odd] == odd
    assert stream.receive(5) is None
    assert stream.receive(5) is None, "whoever asks again hears the same"
    assert stream.end().code == 0


def test_lines_come_as_they_are_said_and_go_as_they_are_sent(transport):
    echo = transport.exec_stream(["sh", "-c", "while read x; do echo got $x; done; echo why >&2; exit 3"], 20)
    for word in ("one", "two"):
        echo.send(word)
        assert echo.receive(5) == f"got {word}"
    with pytest.raises(TimeoutError):
        echo.receive(0.2)
    ended = echo.end()
    assert (ended.code, ended.errors) == (3, "why\n")
    assert echo.end() == ended


def test_only_the_end_of_long_complaints_is_kept(transport):
    loud = transport.exec_stream(["sh", "-c", "seq 100000 >&2; echo done"], 20)
    assert loud.receive(20) == "done"
    ended = loud.end()
    assert ended.errors.endswith("99999\n100000\n")
    assert len(ended.errors) <= 4096


def test_the_device_keeps_the_time_itself(transport):
    stream = transport.exec_stream(["sleep", "987.1"], 0.5)
    assert stream.receive(10) is None
    gone("987.1")


def test_nothing_stays_behind_that_does_not_want_to_go(transport):
    stubborn = "trap '' HUP TERM; while :; do sleep 0.1; done # secateur-stubborn"
    stream = transport.exec_stream(["sh", "-c", f"echo up; {stubborn}"], 100)
    assert stream.receive(5) == "up"
    stream.end()
    gone("secateur-stubborn")


def test_closing_ends_what_runs_and_the_next_call_opens_again(transport, tmp_path):
    stream = transport.exec_stream(["sh", "-c", "echo up; exec sleep 987.2"], 100)
    assert stream.receive(5) == "up"
    stream.end()
    transport.close()
    gone("987.2")
    transport.put(b"x", f"{tmp_path}/again")
    assert transport.get(f"{tmp_path}/again") == b"x"


def planted(folder, marker):
    """A program of somebody else's in the agent's place, that would leave a mark."""
    folder.mkdir(mode=0o700, parents=True)
    place = folder / f"agent-{bundle().sha256[:12]}.pyz"
    place.write_text(f"open({str(marker)!r}, 'w')\n")
    return place


def device_over(transport, folder):
    setup = Setup("onnxruntime", "onnx", python=shlex.quote(sys.executable), folder=str(folder))
    return Device(transport, setup, wait=lambda _: None)


def test_what_lies_in_the_agents_place_is_not_run_unless_it_is_the_agent(transport, tmp_path):
    place, marker = planted(tmp_path / "device", tmp_path / "ran"), tmp_path / "ran"
    device = device_over(transport, tmp_path / "device")
    assert device.hello.machine.cores > 0
    device.close()
    assert not marker.exists()
    assert hashlib.sha256(place.read_bytes()).hexdigest() == bundle().sha256, "the agent has replaced it"
    place.chmod(0o666)
    device = device_over(transport, tmp_path / "device")
    assert device.hello
    device.close()
    assert not place.stat().st_mode & 0o022, "a file that others may write is replaced, whatever it holds"


@pytest.mark.parametrize("what", ["file", "dangling link", "open to others", "below a file"])
def test_a_folder_that_may_not_be_used_is_refused_in_one_line(transport, tmp_path, what):
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
        device_over(transport, folder).measure(WORK)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_folder_that_the_agent_makes_is_private(transport, tmp_path):
    device = device_over(transport, tmp_path / "new" / "device")
    assert device.hello
    device.close()
    assert (tmp_path / "new" / "device").stat().st_mode & 0o077 == 0


def test_the_agent_measures_over_it(transport, tmp_path):
    setup = Setup("onnxruntime", "onnx", python=shlex.quote(sys.executable), folder=str(tmp_path / "device"))
    device = Device(transport, setup)
    assert device.measure(WORK).report is not None
    device.close()
    gone(str(tmp_path / "device"))
