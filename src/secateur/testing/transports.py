"""What every way to a device promises."""

from __future__ import annotations

import os
import shlex
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.agent.latency import Protocol
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.transport import Transport
from secateur.evaluators.devices.work import Setup, Work

SHORT = Protocol(block=3, copies=3, rounds=1)
LIMIT = 30.0
"""Seconds for what takes a fraction of one: a loaded machine is no failure."""
_COMMANDS = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f 2>/dev/null; echo; done"


class TransportContract:
    """Subclass it and override the fixture `transport`; it is a device with a POSIX shell and /proc."""

    @pytest.fixture
    def transport(self) -> Transport:
        """A transport to a device that is there. Whoever makes it closes it."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: object) -> str:
        """An absolute folder on the device that may be written; by default one that this host has as well."""
        return str(tmp_path)

    def gone(self, transport: Transport, marker: str) -> None:
        """Assert that no process on the device has this in its command line, before long."""
        end = time.monotonic() + LIMIT
        while running := self.running(transport, marker):
            assert time.monotonic() < end, running

    def running(self, transport: Transport, marker: str) -> list[str]:
        """Command lines on the device with this in them."""
        stream = transport.exec_stream(["sh", "-c", _COMMANDS], LIMIT)
        lines = []
        while (line := stream.receive(LIMIT)) is not None:
            lines.append(line)
        stream.end()
        return [line for line in lines if marker in line]

    def test_files_go_there_and_come_back_whole(self, transport: Transport, folder: str) -> None:
        content = os.urandom(3_000_000)
        path = f"{folder}/new folder/model.onnx"
        transport.put(content, path)
        assert transport.get(path) == content
        listing = transport.exec_stream(["ls", f"{folder}/new folder"], LIMIT)
        assert [listing.receive(LIMIT), listing.receive(LIMIT)] == ["model.onnx", None], "no part of it stays behind"
        listing.end()
        transport.put(b"another", path)
        assert transport.get(path) == b"another"
        with pytest.raises(FileNotFoundError):
            transport.get(f"{folder}/nothing")

    def test_words_arrive_as_they_are(self, transport: Transport) -> None:
        odd = ["a b", "$HOME", "'q'", "*", "ä;|&"]
        stream = transport.exec_stream(["printf", "%s\\n", *odd], LIMIT)
        assert [stream.receive(LIMIT) for _ in odd] == odd
        assert stream.receive(LIMIT) is None
        assert stream.receive(LIMIT) is None, "whoever asks again hears the same"
        assert stream.end().code == 0

    def test_lines_come_as_they_are_said_and_go_as_they_are_sent(self, transport: Transport) -> None:
        script = "while read x; do echo got $x; done; echo why >&2; exit 3"
        echo = transport.exec_stream(["sh", "-c", script], LIMIT)
        for word in ("one", "two"):
            echo.send(word)
            assert echo.receive(LIMIT) == f"got {word}"
        with pytest.raises(TimeoutError):
            echo.receive(0.2)
        ended = echo.end()
        assert (ended.code, ended.errors) == (3, "why\n")
        assert echo.end() == ended

    def test_only_the_end_of_long_complaints_is_kept(self, transport: Transport) -> None:
        loud = transport.exec_stream(["sh", "-c", "seq 100000 >&2; echo done"], LIMIT)
        assert loud.receive(LIMIT) == "done"
        ended = loud.end()
        assert ended.errors.endswith("99999\n100000\n")
        assert len(ended.errors) <= 4096

    def test_the_device_keeps_the_time_itself(self, transport: Transport) -> None:
        stream = transport.exec_stream(["sleep", "987.1"], 0.5)
        assert stream.receive(LIMIT) is None
        self.gone(transport, "987.1")
        stream.end()

    def test_nothing_stays_behind_that_does_not_want_to_go(self, transport: Transport) -> None:
        stubborn = "trap '' HUP TERM; while :; do sleep 0.1; done # secateur-stubborn"
        stream = transport.exec_stream(["sh", "-c", f"echo up; {stubborn}"], 100)
        assert stream.receive(LIMIT) == "up"
        stream.end()
        self.gone(transport, "secateur-stubborn")

    def test_closing_ends_what_runs_and_the_next_call_opens_again(self, transport: Transport, folder: str) -> None:
        stream = transport.exec_stream(["sh", "-c", "echo up; exec sleep 987.2"], 100)
        assert stream.receive(LIMIT) == "up"
        stream.end()
        transport.close()
        self.gone(transport, "987.2")
        transport.put(b"x", f"{folder}/again")
        assert transport.get(f"{folder}/again") == b"x"


class DeviceContract(TransportContract):
    """The same, and that our agent measures there: the device has a Python with numpy and ONNX Runtime."""

    python = "python3"
    """What starts it there: a path, or words."""

    def test_the_agent_measures_over_it(self, transport: Transport, folder: str) -> None:
        setup = Setup("onnxruntime", "onnx", python=self.python, folder=f"{folder}/device")
        device = Device(transport, setup)
        x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
        work = Work(perceptron(32), perceptron(64), [(x,)], SHORT, parity=[(x,)])
        assert device.measure(work).report is not None
        device.close()
        self.gone(transport, shlex.quote(f"{folder}/device"))


def perceptron(width: int) -> bytes:
    """An ONNX file: x (n, 8) → relu(x W) V (n, 4), with a hidden layer so wide."""
    rng = np.random.default_rng(width)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("W", (8, width)), ("V", (width, 4)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "V"], ["y"]),
    ]
    places = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in (("x", 8), ("y", 4))]
    graph = helper.make_graph(nodes, "g", places[:1], places[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = made.SerializeToString()
    return content
