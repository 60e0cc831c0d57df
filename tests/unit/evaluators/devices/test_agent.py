"""The agent for real, on this host: what it measures, and what it survives."""

from __future__ import annotations

import ast
import dataclasses
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from conftest import REPOSITORY
from secateur.agent.latency import Protocol
from secateur.errors import DeviceLost, EvaluationFailed, MeterFailed
from secateur.evaluators.devices.bundle import STARTER, bundle
from secateur.evaluators.devices.local import LocalTransport
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.work import Setup, Work
from secateur.testing.transports import perceptron
from waiting import until

SHORT = Protocol(block=3, copies=3, rounds=1)
ENDLESS = Protocol(block=1000, copies=2, rounds=10**6)


def expected(model: bytes, x: np.ndarray) -> np.ndarray:
    stored = {i.name: numpy_helper.to_array(i) for i in onnx.load_model_from_string(model).graph.initializer}
    return np.maximum(x @ stored["W"], 0) @ stored["V"]


X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
WORK = Work(perceptron(32), perceptron(64), [(X,)], SHORT, parity=[(X,)])


def open_device(folder, **changes) -> Device:
    setup = {
        "runtime": "onnxruntime",
        "format": "onnx",
        "python": shlex.quote(sys.executable),
        "folder": str(folder / "device"),
    }
    return Device(LocalTransport(folder), Setup(**{**setup, **changes}), wait=lambda _: None)


@pytest.fixture
def device(tmp_path):
    made = open_device(tmp_path)
    yield made
    made.close()
    assert agents_of(tmp_path) == []


def agents_of(folder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status", "ppid"]):
        words = process.info["cmdline"] or []
        if (
            any(word.startswith(str(folder / "device")) for word in words)
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(process)
    return found


def test_it_measures_and_its_outputs_are_the_models(device):
    found = device.measure(dataclasses.replace(WORK, figures=frozenset({"latency", "memory"}), sample=[(X,), (-X,)]))
    np.testing.assert_allclose(found.parity[0][0], expected(WORK.candidate, X), rtol=1e-5)
    both = np.concatenate([expected(WORK.candidate, x) for x in (X, -X)])
    np.testing.assert_allclose(found.sample[0], both, rtol=1e-5)
    report = found.report
    assert report.rounds >= 3
    assert 0 < report.candidate_ms.min <= report.candidate_ms.p50 <= report.candidate_ms.p90
    assert report.interval[0] <= report.ratio <= report.interval[1]
    assert len(report.cores) == 1
    assert report.candidate_memory_bytes > 0


def test_the_device_remembers_how_fast_its_reference_is(device):
    """A reference that is known to be much faster than it ever is here: the device is never quiet, and the figure says so."""
    timing = dataclasses.replace(SHORT, loud=10.0)  # other programs here may slow it by less than that
    work = dataclasses.replace(WORK, timing=timing)
    assert not device.measure(work).report.disturbed
    memory = Path(device.setup.folder) / "reference_times.json"
    known = json.loads(memory.read_text())
    ((key, seconds),) = known["seconds"].items()
    memory.write_text(json.dumps({**known, "seconds": {key: seconds / 100}}))
    loud = device.measure(work).report
    assert loud.disturbed
    assert loud.waited == 0.0
    waiting = device.measure(dataclasses.replace(WORK, timing=dataclasses.replace(timing, allowance=0.2))).report
    assert waiting.disturbed
    assert waiting.waited >= 0.2
    other = dataclasses.replace(work, reference=perceptron(65))
    assert not device.measure(other).report.disturbed, "another reference is not known"


def test_copies_of_a_model_are_timed_in_turn(device):
    found = device.measure(dataclasses.replace(WORK, timing=dataclasses.replace(SHORT, copies=5))).report
    assert (found.copies, found.rounds) == (5, 5)
    assert found.ratio > 0


def test_fifty_measurements_take_one_process(device):
    device.measure(WORK)
    (agent,) = agents_of_device(device)
    for width in range(1, 50):
        device.measure(dataclasses.replace(WORK, candidate=perceptron(width)))
    assert [a.pid for a in agents_of_device(device)] == [agent.pid]


def agents_of_device(device) -> list[psutil.Process]:
    """Neither the `timeout` around it nor the children that measure."""
    found = []
    for process in psutil.process_iter(["cmdline", "status", "ppid"]):
        words = process.info["cmdline"] or [""]
        if (
            words[0] == sys.executable
            and any(device.setup.folder in w for w in words)
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(process)
    pids = {p.pid for p in found}
    return [p for p in found if p.info["ppid"] not in pids]


def test_a_file_that_was_damaged_over_there_is_pushed_again(device, tmp_path):
    device.measure(WORK)
    for file in (tmp_path / "device" / "files").glob("*.onnx"):
        file.write_bytes(file.read_bytes()[:-10])
    assert device.measure(WORK).report is not None
    for file in (tmp_path / "device" / "files").iterdir():
        file.unlink()
    assert device.measure(WORK).report is not None


def test_a_model_that_cannot_be_opened_is_that_candidates_failure(device):
    with pytest.raises(EvaluationFailed, match="ONNX Runtime does not load the model"):
        device.measure(dataclasses.replace(WORK, candidate=b"no model"))
    assert device.measure(WORK).report is not None


def test_the_deadline_is_kept_on_the_device(tmp_path):
    slow = open_device(tmp_path, deadline=0.6)
    with pytest.raises(EvaluationFailed, match=r"longer than 0.6 s on"):
        slow.measure(dataclasses.replace(WORK, timing=ENDLESS))
    assert slow.measure(WORK).report is not None, "and the agent goes on"
    slow.close()


def measuring(device, work):
    """A thread that measures, and where its outcome will be."""
    outcome = []

    def run():
        try:
            outcome.append(device.measure(work))
        except Exception as error:  # noqa: BLE001 # it is looked at
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_a_measuring_process_that_is_killed_is_tried_again(device, tmp_path):
    device.measure(WORK)
    thread, outcome = measuring(device, dataclasses.replace(WORK, timing=Protocol(block=1000, copies=2, rounds=30)))
    (agent,) = agents_of_device(device)
    until(agent.children)
    agent.children()[0].kill()
    thread.join(30)
    assert outcome[0].report is not None


def test_an_agent_that_is_killed_is_started_again(device):
    device.measure(WORK)
    (agent,) = agents_of_device(device)
    agent.kill()
    agent.wait(5)
    assert device.measure(WORK).report is not None
    (another,) = agents_of_device(device)
    assert another.pid != agent.pid


def test_a_candidate_over_which_it_dies_twice_is_at_fault(device):
    device.measure(WORK)
    thread, outcome = measuring(device, dataclasses.replace(WORK, candidate=perceptron(7), timing=ENDLESS))
    killed = set()

    def kill_a_child():
        for agent in agents_of_device(device):
            for child in agent.children():
                if child.pid not in killed:
                    killed.add(child.pid)
                    child.kill()
        return len(killed) >= 2

    until(kill_a_child)
    thread.join(30)
    assert isinstance(outcome[0], EvaluationFailed)
    assert "died (signal 9), twice; the reference model runs there" in str(outcome[0])


def test_nothing_outlives_the_host(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests'); import dataclasses\n"
        "from unit_agent import open_device, WORK, ENDLESS\n"
        "device = open_device(Path(sys.argv[1])); device.measure(WORK); print('up', flush=True)\n"
        "device.measure(dataclasses.replace(WORK, timing=ENDLESS))\n"
    ).replace("unit_agent", "unit.evaluators.devices.test_agent")
    host = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert host.stdout.readline() == "up\n"
    until(lambda: len(agents_of(tmp_path)) >= 2)
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    host.stdout.close()
    until(lambda: not agents_of(tmp_path))


def test_a_device_is_used_by_one_at_a_time(device, tmp_path):
    device.measure(WORK)
    with (tmp_path / "device" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread, outcome = measuring(device, WORK)
        thread.join(1.5)
        assert outcome == [], "it waits, and says meanwhile that it is alive"
    thread.join(10)
    assert outcome[0].report is not None


def test_energy_comes_from_the_users_meter(tmp_path):
    meter = open_device(tmp_path, energy_command="cut -d' ' -f1 /proc/uptime")  # one watt, whatever happens
    found = meter.measure(dataclasses.replace(WORK, figures=frozenset({"latency", "energy"}))).report
    assert 0 < found.energy_mj < 1000, "a run takes less than a second"
    meter.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo much", r"energy_command printed 'much\\n', not a number of joules"),
        ("echo nan", r"energy_command printed 'nan\\n', not a number"),
        ("echo no >&2; echo 'no meter' >&2", r"energy_command printed '' \(no meter\), not a number"),
    ],
)
def test_a_meter_that_prints_no_number_is_at_fault_itself(tmp_path, command, said):
    broken = open_device(tmp_path, energy_command=command)
    with pytest.raises(MeterFailed, match=said):
        broken.measure(dataclasses.replace(WORK, figures=frozenset({"latency", "energy"})))
    broken.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_no_candidates_fault(tmp_path):
    disk = tmp_path / "device"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        full = open_device(tmp_path)
        with pytest.raises(DeviceLost, match="(?i)no space left|full"):
            full.measure(dataclasses.replace(WORK, candidate=perceptron(20_000)))
        full.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_bundle_is_the_same_for_the_same_sources_and_imports_nothing_of_ours():
    assert bundle().content == bundle.__wrapped__().content
    for file in (REPOSITORY / "src/secateur/agent").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert not (node.module or "").startswith("secateur"), file
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("secateur") for alias in node.names), file


def test_a_module_in_the_working_directory_is_not_taken_for_one_of_pythons_own(tmp_path):
    """The agent is started with `-c`, in a project's folder where the device is this host."""
    (tmp_path / "json.py").write_text("raise SystemExit('the project was imported')\n")
    command = [sys.executable, "-c", STARTER, "there/agent.pyz", "0" * 64]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == {"absent": "there/agent.pyz"}
