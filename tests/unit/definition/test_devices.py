"""Devices as YAML says them: what is allowed, and what is said of everything else."""

from __future__ import annotations

import pytest

from secateur.definition import AdbDevice, LocalDevice, SshDevice, load_evaluator
from secateur.errors import DefinitionError

BASE = "objectives: {latency: minimize}\n"


def load(folder, monkeypatch, text):
    monkeypatch.chdir(folder)
    (folder / "evaluators").mkdir(exist_ok=True)
    (folder / "evaluators" / "mine.yaml").write_text(BASE + text)
    return load_evaluator("mine")


def test_a_device_is_this_host_unless_something_is_said(tmp_path, monkeypatch):
    for text in ("", "device: local\n", "device: {kind: local}\n"):
        definition, root = load(tmp_path, monkeypatch, text)
        assert isinstance(definition.device, LocalDevice)
        assert root == tmp_path


def test_boards_over_ssh(tmp_path, monkeypatch):
    text = "device: {kind: ssh, hosts: [pi@a, 'pi@b.local:2222', 'pi@[fe80::1]:22']}\n"
    device = load(tmp_path, monkeypatch, text)[0].device
    assert isinstance(device, SshDevice)
    assert device.addresses() == [("pi@a", 22), ("pi@b.local", 2222), ("pi@fe80::1", 22)]


def test_phones_over_adb(tmp_path, monkeypatch):
    device = load(tmp_path, monkeypatch, "device: {kind: adb, serials: [R58]}\n")[0].device
    assert isinstance(device, AdbDevice)
    assert device.serials == ["R58"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device: lokal\n", r"mine.yaml:2: 'device' is of the kind 'lokal'. Did you mean 'local'\? Allowed: local, ssh, adb."),
        ("device: {hosts: [a@b]}\n", r"mine.yaml:2: 'device' needs a 'kind'"),
        ("device:\n  kind: ssh\n", r"mine.yaml:2: 'device.hosts' is missing"),
        ("device:\n  kind: ssh\n  hosts: [a@b]\n  pasword: x\n", r"mine.yaml:5: unknown key 'pasword'. Allowed here: connect_seconds, "),
        ("device:\n  kind: ssh\n  hosts: ['pi:secret@a']\n", r"mine.yaml:4: .*must be user@host.*passwords are not supported"),
        ("device:\n  kind: ssh\n  hosts: [a@b, a@b]\n", r"mine.yaml:4: .*a host is listed twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(text, said, tmp_path, monkeypatch):
    with pytest.raises(DefinitionError, match=said):
        load(tmp_path, monkeypatch, text)


def test_what_is_shipped_belongs_to_the_folder_it_is_used_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("local_cpu", "local_openvino", "raspberry_pi", "android"):
        _, root = load_evaluator(name)
        assert root == tmp_path
