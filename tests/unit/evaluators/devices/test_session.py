"""What the host makes of a device's answers, good and bad."""

from __future__ import annotations

import dataclasses

import pytest

from scripted import BOARD, ENDED, SILENT, WORK, ScriptedTransport, device, hello, result
from secateur.errors import DeviceLost, DeviceRefused, EvaluationFailed


def in_turn(*answers):
    """The first request gets the first answer, and so on; the last one stays."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_one_agent_serves_many_and_files_travel_once():
    transport = ScriptedTransport(lambda _: [{"alive": 1.0}, result()])
    board = device(transport)
    for number in range(50):
        found = board.measure(dataclasses.replace(WORK, candidate=b"%d" % number))
        assert found.report.ratio == 0.5
    assert len(transport.commands) == 1
    assert len(transport.puts) == len(set(transport.puts)) == 50 + 2, "candidates, one reference, one file of inputs"
    assert all(r["files"]["reference"] == transport.requests[0]["files"]["reference"] for r in transport.requests)


def test_the_agent_is_pushed_where_it_is_missing_or_another_one():
    greetings = iter([{"absent": "agent.pyz"}, hello()])
    transport = ScriptedTransport(lambda _: [result()], lambda: next(greetings))
    device(transport).measure(WORK)
    assert transport.puts[0].startswith(".cache/secateur/agent-")
    assert transport.puts[0].endswith(".pyz")
    assert len(transport.commands) == 2


def test_an_agent_that_does_not_arrive_and_a_folder_that_may_not_be_used_are_one_line_each():
    with pytest.raises(DeviceLost, match=r"board: .cache/secateur/agent-.*\.pyz does not arrive whole"):
        device(ScriptedTransport(lambda _: [], lambda: {"absent": "agent.pyz"})).measure(WORK)
    refused = {"unusable": "/tmp/x belongs to another user"}
    with pytest.raises(DeviceRefused, match="^board: /tmp/x belongs to another user. .*name another `folder`"):
        device(ScriptedTransport(lambda _: [], lambda: refused)).measure(WORK)


def test_an_interpreter_that_does_not_start_the_agent_is_named():
    transport = ScriptedTransport(lambda _: [], lambda: ENDED)
    with pytest.raises(DeviceRefused, match=r"`python3.7` does not start .*Killed.*Python 3.9.*`python:`"):
        device(transport, python="python3.7").measure(WORK)


def test_a_runtime_that_is_not_there_is_named_with_its_remedy():
    missing = hello(runtime={"available": False, "reason": "pip install onnxruntime"})
    with pytest.raises(DeviceRefused, match="board: onnxruntime cannot be used there: pip install onnxruntime"):
        device(ScriptedTransport(lambda _: [], lambda: missing)).measure(WORK)


def test_a_file_that_did_not_arrive_whole_is_pushed_again_once():
    answers = in_turn([{"refused": "corrupt", "reason": ""}], [result()])

    def answer(request):
        (said,) = answers(request)
        if "refused" in said:
            said["reason"] = request["files"]["candidate"]["path"]
        return [said]

    transport = ScriptedTransport(answer)
    assert device(transport).measure(WORK).report is not None
    candidate = transport.requests[0]["files"]["candidate"]["path"]
    assert sum(put.endswith(candidate) for put in transport.puts) == 2
    broken = ScriptedTransport(lambda r: [{"refused": "corrupt", "reason": r["files"]["candidate"]["path"]}])
    with pytest.raises(DeviceLost, match="does not arrive whole"):
        device(broken).measure(WORK)


def test_a_model_that_the_runtime_refuses_is_that_candidates_failure():
    transport = ScriptedTransport(
        lambda _: [{"refused": "failed", "reason": "ONNX Runtime does not load the model: no"}]
    )
    with pytest.raises(EvaluationFailed, match="on board: ONNX Runtime does not load the model: no"):
        device(transport).measure(WORK)
    assert len(transport.requests) == 1, "a refusal is an answer and no reason to ask again"


def test_too_slow_is_that_candidates_failure():
    with pytest.raises(EvaluationFailed, match="longer than 300 s on board"):
        device(ScriptedTransport(lambda _: [{"late": 300.0}])).measure(WORK)


def test_a_silent_device_is_looked_for_three_times_and_then_lost():
    waits: list[float] = []
    transport = ScriptedTransport(lambda _: [{"alive": 1.0}, SILENT])
    with pytest.raises(DeviceLost, match="board: no sign of life for 15 s"):
        device(transport, waits).measure(WORK)
    assert len(transport.requests) == 3
    assert transport.closed == 3, "each time on a new connection"
    assert waits == [0.0, 2.0, 8.0]


def test_a_link_that_comes_back_costs_nothing_but_time():
    transport = ScriptedTransport(in_turn([DeviceLost("cut")], [result()]))
    assert device(transport).measure(WORK).report.ratio == 0.5
    assert len(transport.commands) == 2


def test_an_agent_that_dies_once_is_started_again():
    transport = ScriptedTransport(in_turn([{"died": 9}], [result()]))
    assert device(transport).measure(WORK).report.ratio == 0.5
    transport = ScriptedTransport(in_turn([ENDED], [result()]))
    assert device(transport).measure(WORK).report.ratio == 0.5
    assert len(transport.commands) == 2


def test_who_dies_twice_is_judged_by_the_reference():
    def reference_alone(request):
        same = request["files"]["candidate"] == request["files"]["reference"]
        return [result(1.0)] if same else [{"died": 11}]

    with pytest.raises(
        EvaluationFailed, match=r"on board the measuring process died \(signal 11\), twice; the reference"
    ):
        device(ScriptedTransport(reference_alone)).measure(WORK)
    with pytest.raises(DeviceLost, match="does not measure the reference model either"):
        device(ScriptedTransport(lambda _: [{"died": 11}])).measure(WORK)


def test_a_device_that_is_full_is_lost_and_no_candidate_at_fault():
    transport = ScriptedTransport(
        lambda _: [{"refused": "error", "reason": "OSError: [Errno 28] No space left on device"}]
    )
    with pytest.raises(DeviceLost, match="No space left"):
        device(transport).measure(WORK)


def test_what_a_runtime_prints_between_the_lines_is_not_the_agents():
    class Chatty(ScriptedTransport):
        pass

    transport = Chatty(lambda _: ["INFO: delegate created", 7, result()])
    assert device(transport).measure(WORK).report.ratio == 0.5


def test_fingerprints_tell_emulation_and_unusual_options():
    emulated = dataclasses.replace(BOARD, emulated=True)
    board = device(
        ScriptedTransport(lambda _: [], lambda: hello(emulated)), options={"provider": "cpu", "graph": "basic"}
    )
    assert board.fingerprint == "Board, 4 cores, Linux aarch64, onnxruntime 1.0, graph basic, 1 thread, EMULATED"
