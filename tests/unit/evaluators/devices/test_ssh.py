"""A board over ssh, played by an OpenSSH server on loopback."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys

import pytest

from link import link_to
from secateur.errors import DeviceLost, DeviceRefused
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.ssh import Login, SshTransport
from secateur.evaluators.devices.work import Setup
from ssh_server import make_key, ssh_server
from transports import gone
from unit.evaluators.devices.test_agent import WORK, perceptron


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("board") / "ssh") as running:
        yield running


@pytest.fixture
def login(server):
    folder = server.folder
    return Login("root@127.0.0.1", server.port, folder / "user", folder / "known_hosts", 5.0, 0.5)


@pytest.fixture
def transport(login):
    made = SshTransport(login)
    yield made
    made.close()


def test_fifty_candidates_over_one_connection(server, login, tmp_path):
    transport = SshTransport(login)
    setup = Setup("onnxruntime", "onnx", python=shlex.quote(sys.executable), folder=str(tmp_path / "device"))
    board = Device(transport, setup)
    before = server.log.count("Accepted publickey")
    for width in range(1, 51):
        assert board.measure(dataclasses.replace(WORK, candidate=perceptron(width))).report is not None
    assert transport.connections == 1
    assert server.log.count("Accepted publickey") == before + 1
    board.close()
    gone(str(tmp_path / "device"))


def test_another_host_key_is_refused(login, tmp_path):
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{login.port} {' '.join(other)}\n")
    for known in (tmp_path / "known", tmp_path / "other.pub"):
        transport = SshTransport(dataclasses.replace(login, known_hosts=known))
        with pytest.raises(DeviceRefused, match="its host key is not the one in"):
            transport.get("x")
        transport.close()


def test_an_unknown_user_key_is_refused(login, tmp_path):
    transport = SshTransport(dataclasses.replace(login, key_file=make_key(tmp_path / "stranger")))
    with pytest.raises(DeviceRefused, match="refuses the login with .*stranger.*ssh-copy-id"):
        transport.get("x")
    transport.close()


def test_keys_that_are_missing_or_locked_are_named(login, tmp_path):
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    for file, said in (
        (tmp_path / "none", "the key .*none does not exist"),
        (locked, "One with a passphrase goes into the ssh-agent"),
    ):
        transport = SshTransport(dataclasses.replace(login, key_file=file))
        with pytest.raises(DeviceRefused, match=said):
            transport.get("x")
        transport.close()


def test_a_port_where_nobody_listens_is_a_lost_device(login):
    transport = SshTransport(dataclasses.replace(login, port=1))
    with pytest.raises(DeviceLost, match="127.0.0.1:1 cannot be reached"):
        transport.get("x")
    transport.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_says_how_much_is_free(transport, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(DeviceLost, match=r"does not take .*model.onnx \(1,000,000 bytes; \d+ kB are free at"):
            transport.put(b"x" * 1_000_000, f"{tmp_path}/model.onnx")
        assert not (tmp_path / "model.onnx").exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def link(server, login, tmp_path):
    """A link to the server that can be cut, and a login over it."""
    with link_to(server.port) as made:
        kind, key, *_ = (server.folder / "host.pub").read_text().split()
        known = tmp_path / "known_over_the_link"
        known.write_text(f"[127.0.0.1]:{made.port} {kind} {key}\n")
        made.login = dataclasses.replace(login, port=made.port, known_hosts=known)
        yield made


def test_a_dead_link_is_noticed_and_the_command_over_there_keeps_its_own_deadline(link):
    transport = SshTransport(link.login)
    stream = transport.exec_stream(["sh", "-c", "echo up; sleep 987.2"], 4)
    assert stream.receive(5) == "up"
    link.frozen = True
    with pytest.raises(DeviceLost, match="the link was cut"):
        stream.receive(20)
    link.restore()
    gone("987.2")
    again = transport.exec_stream(["echo", "back"], 5)
    assert again.receive(5) == "back"
    assert transport.connections == 2
    transport.close()


def test_a_link_that_is_cut_is_a_lost_device_until_it_is_back(link):
    transport = SshTransport(link.login)
    stream = transport.exec_stream(["sh", "-c", "echo up; sleep 987.3"], 100)
    assert stream.receive(5) == "up"
    link.cut()
    with pytest.raises(DeviceLost):
        stream.receive(10)
    with pytest.raises(DeviceLost):
        transport.get("x")
    link.restore()
    transport.exec_stream(["pkill", "-f", "sleep 987.3"], 5).receive(5)
    gone("987.3")
    transport.close()


def test_a_slow_link_is_no_dead_one(link, tmp_path):
    transport = SshTransport(link.login)
    transport.put(b"", f"{tmp_path}/first")  # the handshake at full speed
    link.bytes_a_second = 150_000
    content = os.urandom(550_000)
    transport.put(content, f"{tmp_path}/model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == content
    assert transport.connections == 1
    transport.close()


def test_a_push_that_is_cut_leaves_nothing_that_looks_whole(link, tmp_path):
    transport = SshTransport(link.login)
    transport.put(b"", f"{tmp_path}/first")
    link.cut_after = 500_000
    content = os.urandom(2_000_000)
    with pytest.raises(DeviceLost):
        transport.put(content, f"{tmp_path}/model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    link.restore()
    transport.put(content, f"{tmp_path}/model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == content
    transport.close()
