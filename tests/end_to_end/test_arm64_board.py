"""A whole arm64 board over ssh: another architecture, another user, its own system, and a cable that can be pulled out."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import onnxruntime
import pytest
import torch

from board import arm64_board, missing
from nets import images, network
from secateur.agent.latency import Protocol
from secateur.errors import DeviceLost
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.ssh import Login, SshTransport
from secateur.evaluators.devices.work import Setup, Work
from secateur.evaluators.onnx_export import export
from waiting import until

pytestmark = pytest.mark.arm64
PYTHON = ["/usr/bin/python3", "-c"]
RUN = """
import sys, numpy, onnxruntime
model, inputs, outputs = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
numpy.save(outputs, session.run(None, {session.get_inputs()[0].name: numpy.load(inputs)})[0])
"""
COUNT = """
import itertools, sys, time
for number in itertools.count():
    print(number, flush=True)
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def board():
    if reason := missing():
        pytest.skip(reason)
    with arm64_board() as running:
        yield running


@pytest.fixture
def transport(board):
    made = SshTransport(Login(board.host, board.port, board.key_file, board.known_hosts, 5.0, 1.0))
    yield made
    made.close()


def said(transport, *words):
    """All lines of a command that is expected to end well."""
    stream = transport.exec_stream([*PYTHON, *words], 60)
    lines = list(iter(lambda: stream.receive(60), None))
    ended = stream.end()
    assert ended.code == 0, ended.errors
    return lines


def test_the_board_is_another_architecture(transport):
    asked = "import getpass, os, platform; print(platform.machine(), getpass.getuser(), os.getcwd())"
    assert said(transport, asked) == ["aarch64 pi /home/pi"]


def test_outputs_there_are_those_of_this_host(transport):
    model = export(network("residual"), (images(2),))
    inputs = images(3).numpy()
    packed = io.BytesIO()
    np.save(packed, inputs)
    transport.put(model, "there/model.onnx")
    transport.put(packed.getvalue(), "there/inputs.npy")
    said(transport, RUN, "there/model.onnx", "there/inputs.npy", "there/outputs.npy")
    found = np.load(io.BytesIO(transport.get("there/outputs.npy")))
    (expected,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": inputs})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_cable_pulled_out_loses_the_device_and_leaves_nothing_running_there(board, transport):
    """The link goes in the middle of a command; the board ends that by itself, still cut off, and is there again afterwards."""
    marker = "cut-off-in-the-middle"
    stream = transport.exec_stream([*PYTHON, COUNT, marker], 12)
    assert stream.receive(30) == "0"
    assert board.processes(marker)
    board.cut()
    with pytest.raises(DeviceLost, match=board.host):
        while stream.receive(30) is not None:
            pass
    until(lambda: not board.processes(marker), "the end of the command on the board, at its deadline")
    with pytest.raises(DeviceLost, match=board.host):
        transport.get("/etc/hostname")
    transport.close()
    board.restore()
    assert said(transport, "print('back')") == ["back"]


def measuring_on(transport) -> Device:
    return Device(transport, Setup("onnxruntime", "onnx", python="/usr/bin/python3", deadline=120.0))


def test_the_agent_measures_there_and_says_that_the_times_mean_nothing(board, transport):
    model, x = network("residual"), images(1)
    content = export(model, (images(2),))
    device = measuring_on(transport)
    assert device.hello.machine.architecture == "aarch64"
    assert device.hello.machine.emulated
    assert device.fingerprint.endswith("EMULATED")
    inputs = [(x.numpy(),)]
    found = device.measure(Work(content, content, inputs, Protocol(block=2, copies=2, rounds=1), parity=inputs))
    with torch.no_grad():
        np.testing.assert_allclose(found.parity[0][0], model(x).numpy(), rtol=0, atol=1e-5)
    assert found.report is not None
    device.close()
    until(lambda: not board.processes("agent-"), "the end of the agent")


def test_a_measurement_that_is_cut_off_is_made_again_when_the_board_is_back(board, transport):
    content = export(network("residual"), (images(2),))
    work = Work(content, content, [(images(1).numpy(),)], Protocol(block=20, copies=2, rounds=2))
    device = measuring_on(transport)
    assert device.hello.machine.emulated

    def cut_and_restore():
        until(lambda: len(board.processes("agent-")) >= 3, "a measurement: timeout, agent and its child")
        board.cut()
        time.sleep(4)  # longer than the keepalive lasts
        board.restore()

    meanwhile = threading.Thread(target=cut_and_restore)
    meanwhile.start()
    assert device.measure(work).report is not None
    meanwhile.join()
    assert transport.connections == 2
    device.close()
