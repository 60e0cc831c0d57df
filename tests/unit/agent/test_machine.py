"""Sensors, read from an invented /proc and /sys."""

from __future__ import annotations

import os
import platform

import pytest

from secateur.agent import machine as sensors
from secateur.agent.machine import energy_counters, machine, read_counters, spent_between, state


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_raspberry_pi_says_what_it_is_and_how_it_feels(tmp_path):
    put(tmp_path, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n")
    put(tmp_path, "proc/meminfo", "MemTotal:        3884000 kB\nMemFree: 1 kB\n")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
    for core, frequency in ((2, 1500000), (3, 600000)):
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", f"{frequency}\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "61350\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "48000\n")
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50004\n")
    found = machine(tmp_path)
    assert (found.processor, found.memory_mb, found.governor) == ("Raspberry Pi 4 Model B Rev 1.4", 3792, "ondemand")
    now = state({2, 3}, tmp_path)
    assert (now.temperature_c, now.frequency_mhz, now.throttled) == (61.35, 600.0, True)
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")
    assert state({2, 3}, tmp_path).throttled is False, "it was throttled once, and is not now"


def test_what_cannot_be_read_is_unknown_and_not_guessed(tmp_path):
    now = state({0}, tmp_path)
    assert (now.temperature_c, now.frequency_mhz, now.throttled, now.throttle_count) == (None, None, None, None)
    assert machine(tmp_path).governor is None
    assert energy_counters(tmp_path) == []


def test_throttle_counts_of_the_cores_in_use_are_added_up(tmp_path):
    for core in (0, 1, 2):
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", f"{core + 1}\n")
    assert state({1, 2}, tmp_path).throttle_count == 5


def test_energy_is_that_of_the_packages_and_survives_a_wrap(tmp_path):
    base = "sys/class/powercap"
    package = put(tmp_path, f"{base}/intel-rapl:0/energy_uj", "900000")
    put(tmp_path, f"{base}/intel-rapl:0/max_energy_range_uj", "1000000")
    put(tmp_path, f"{base}/intel-rapl:0:0/energy_uj", "5")  # a part of the package
    counters = energy_counters(tmp_path)
    assert counters == [package]
    before = read_counters(counters)
    package.write_text("400000")
    assert spent_between(before, read_counters(counters)) == pytest.approx(0.5)


def test_an_emulator_shows_as_what_runs_the_parent(tmp_path):
    put(tmp_path, "proc/cpuinfo", "CPU implementer\t: 0x41\n")
    link = tmp_path / "proc" / str(os.getppid()) / "exe"
    link.parent.mkdir()
    link.symlink_to("/usr/bin/dash")
    assert not machine(tmp_path).emulated
    link.unlink()
    link.symlink_to("/usr/bin/qemu-aarch64-static")
    assert machine(tmp_path).emulated
    assert not machine().emulated


@pytest.mark.parametrize(
    ("architecture", "cpuinfo", "emulated"),
    [
        ("aarch64", "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n", True),
        ("aarch64", "processor\t: 0\nCPU implementer\t: 0x41\n", False),
        ("x86_64", "vendor_id\t: GenuineIntel\n", False),
    ],
)
def test_user_mode_emulation_shows_in_the_hosts_processor(architecture, cpuinfo, emulated, tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    put(tmp_path, "proc/cpuinfo", cpuinfo)
    assert sensors.machine(tmp_path).emulated is emulated
