"""What the terminal shows of devices: a check, and a model measured on one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from secateur.evaluators.devices.report import Report
from secateur.pipelines.devices import DeviceChecked, ModelMeasured

PERCENT = 100.0


def show_devices(devices: Iterator[DeviceChecked], *, as_json: bool) -> None:
    """Each device as soon as it has proven itself."""
    if as_json:
        listed = [{**asdict(device), "noise": device.noise} for device in devices]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return
    console = _console()
    for device in devices:
        console.print(f"[bold]{device.name}[/]: {device.fingerprint}")
        machine = device.machine
        memory = f"{machine.memory_mb:,} MB" if machine.memory_mb else "unknown"
        console.print(
            f"  memory {memory}, governor {machine.governor or 'unknown'}, cores used {_cores(device.report)}"
        )
        console.print(f"  {_health(device.report)}")
        console.print(
            f"  A/A test: a model against itself, {len(device.ratios)} times: ratios {_list(device.ratios)}; "
            f"noise floor {device.noise * PERCENT:.2f} %"
        )
        if device.channel_multiple is not None:
            steps = f"in steps of {device.channel_multiple} (`multiple_of: device` in a search space uses that)"
            console.print(f"  channels: it gets faster {steps}")
        if machine.emulated:
            console.print(
                "  [bold]emulated[/]: its timings mean nothing and never enter a front; outputs and files are checked."
            )


def show_measured(measured: ModelMeasured, *, as_json: bool) -> None:
    """A model on a device."""
    report = measured.report
    rate = measured.batch / report.candidate_ms.p50 * 1e3
    if as_json:
        sys.stdout.write(json.dumps({**asdict(measured), "samples_per_second": rate}, indent=2) + "\n")
        return
    console = _console()
    console.print(f"[bold]{measured.model}[/] on {measured.fingerprint}, batch {measured.batch}")
    table = Table(header_style="bold")
    for heading in ("", "min ms", "p50 ms", "p90 ms", "memory"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = [(measured.model, report.candidate_ms, report.candidate_memory_bytes)]
    if measured.against is not None:
        rows.append((measured.against, report.reference_ms, report.reference_memory_bytes))
    for name, times, memory in rows:
        megabytes = "unavailable" if memory is None else f"{memory / 1e6:.2f} MB"
        table.add_row(name, f"{times.min:.3f}", f"{times.p50:.3f}", f"{times.p90:.3f}", megabytes)
    console.print(table)
    low, high = report.interval
    if measured.against is None:
        console.print(f"against itself: {report.ratio:.4f} ({low:.4f} to {high:.4f}), the noise of this measurement")
    else:
        console.print(
            f"ratio {report.ratio:.4f}, 95 % interval {low:.4f} to {high:.4f} after {report.rounds} rounds: "
            f"{1 / report.ratio:.2f}× as fast"
        )
    energy = "unavailable" if report.energy_mj is None else f"{report.energy_mj:.3f} mJ a run"
    console.print(f"{rate:,.0f} samples/s; energy {energy}; {_health(report)}")
    if measured.emulated:
        console.print("[bold]emulated[/]: these timings mean nothing.")


def _console() -> Console:
    """Sentences are broken between words on a terminal, and stay whole in a file."""
    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def _health(report: Report) -> str:
    """Temperature, frequency, drift, and whether it throttled."""
    after = report.after
    temperature = "unknown" if after.temperature_c is None else f"{after.temperature_c:.0f} °C"
    frequency = "unknown" if after.frequency_mhz is None else f"{after.frequency_mhz:,.0f} MHz"
    throttled = "yes: cool it, or lower its clock" if report.throttled else "not seen"
    drift = f"reference drift {report.drift * PERCENT:+.1f} %"
    quiet = "; it did not become quiet: the figures are less certain" if report.disturbed else ""
    return f"temperature {temperature}, frequency {frequency}, throttling {throttled}, {drift}{quiet}"


def _cores(report: Report) -> str:
    return ", ".join(map(str, report.cores))


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
