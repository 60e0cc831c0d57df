"""Several devices of one kind: who measures, who rests, and when the search must wait."""

from __future__ import annotations

import dataclasses
import fcntl

import pytest

from scripted import BOARD, WORK, ScriptedTransport, device, hello, result
from secateur.errors import DeviceLost, DeviceRefused
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.pool import QUARANTINE, Devices


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))


def pool(*transports, events=None, clock=lambda: 0.0):
    return Devices([device(t) for t in transports], (events if events is not None else []).append, clock)


def named(name, answer, machine=BOARD):
    return ScriptedTransport(answer, lambda: hello(machine), name)


def test_a_device_that_is_busy_is_passed_over(tmp_path):
    boards = [named(name, lambda _: [result()]) for name in ("one", "two")]
    devices = pool(*boards)
    devices.measure(WORK)
    locks = sorted(slot.lock for slot in devices._slots)
    held = [
        lock
        for lock, slot in zip(locks, sorted(devices._slots, key=lambda s: s.lock), strict=True)
        if slot.device.name == "one"
    ]
    with held[0].open("w") as other:  # another process is measuring on it
        fcntl.flock(other, fcntl.LOCK_EX)
        before = len(boards[1].requests)
        for _ in range(3):
            devices.measure(WORK)
        assert len(boards[1].requests) == before + 3


def test_a_lost_device_rests_while_others_go_on():
    events: list[str] = []
    now = [0.0]
    away = named("away", lambda _: [DeviceLost("away: unplugged.")])
    here = named("here", lambda _: [result()])
    devices = pool(away, here, events=events, clock=lambda: now[0])
    for _ in range(4):
        assert devices.measure(WORK).report.ratio == 0.5
    assert len(away.requests) in (0, 3), "asked at most once, with its three attempts"
    away.answer = lambda _: [result()]
    now[0] = 2 * QUARANTINE
    for _ in range(4):
        devices.measure(WORK)


def test_where_all_are_lost_the_search_is_suspended_with_the_reasons():
    devices = pool(*(named(n, lambda _, n=n: [DeviceLost(f"{n}: unplugged.")]) for n in ("one", "two")))
    with pytest.raises(
        DeviceLost, match=r"one: unplugged.*two: unplugged.*run the same command again.*no trial was scored"
    ):
        devices.measure(WORK)


def test_a_device_whose_reference_drifts_is_quarantined_and_the_figure_comes_from_another():
    events: list[str] = []
    pace = {"hot": 2.0, "cool": 2.0}
    boards = {n: named(n, lambda _, n=n: [result(reference_ms=pace[n])]) for n in pace}
    devices = pool(*boards.values(), events=events)
    with_each = lambda: [devices._on(slot, WORK) for slot in devices._slots]  # noqa: E731 # what `measure` does with a free one
    assert all(with_each())
    pace["hot"] = 2.3
    hot, cool = with_each()
    assert hot is None
    assert cool is not None
    assert events == ["hot: its reference takes 15% longer than at first. Not used for 60 s."]
    assert all(devices.measure(WORK).report.reference_ms.min == 2.0 for _ in range(3))


def test_alone_a_drifting_device_goes_on_and_says_so():
    pace = [2.0]
    devices = pool(named("only", lambda _: [result(reference_ms=pace[0], drift=0.2)]))
    devices.measure(WORK)
    pace[0] = 4.0
    assert devices.measure(WORK).report.drift == 0.2


def test_a_pool_is_of_one_kind():
    other = dataclasses.replace(BOARD, processor="Another")
    devices = pool(named("one", lambda _: [result()]), named("two", lambda _: [result()], other))
    with pytest.raises(
        DeviceRefused, match="is another kind of device than one: 'Another.*'Board.*an evaluator of its own"
    ):
        for slot in devices._slots:
            devices._on(slot, WORK)


def test_measurements_are_kept_by_model_device_runtime_and_protocol(tmp_path):
    board = named("board", lambda _: [result()])
    devices = pool(board)
    kept = Kept(tmp_path / "kept")
    report = devices.measure(WORK).report
    kept.put(WORK, devices.fingerprint, report)
    assert kept.get(WORK, devices.fingerprint) == report
    assert kept.get(WORK, devices.fingerprint + " hotter") is None
    assert kept.get(dataclasses.replace(WORK, candidate=b"other"), devices.fingerprint) is None
    assert kept.get(dataclasses.replace(WORK, reference=b"other"), devices.fingerprint) is None
    longer = dataclasses.replace(WORK, timing=dataclasses.replace(WORK.timing, rounds=9))
    assert kept.get(longer, devices.fingerprint) is None
    patient = dataclasses.replace(WORK, timing=dataclasses.replace(WORK.timing, allowance=9.0))
    assert kept.get(patient, devices.fingerprint) == report, "how long one may wait says nothing about the figure"


def test_a_damaged_note_of_a_measurement_is_none(tmp_path):
    kept = Kept(tmp_path / "kept")
    devices = pool(named("board", lambda _: [result()]))
    kept.put(WORK, "d", devices.measure(WORK).report)
    (file,) = (tmp_path / "kept").glob("*/*.json")
    file.write_text('{"ratio": 1')
    assert kept.get(WORK, "d") is None
