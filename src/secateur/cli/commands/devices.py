"""Commands about devices: device check, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json, PipelineProject

device_app = typer.Typer(name="device", help="Devices that models are measured on.", no_args_is_help=True)


@device_app.command("check")
def device_check(
    name: Annotated[str, typer.Argument(help="An evaluator in evaluators/ (its device), a path to one, or `local`.")],
    as_json: Json = False,
    project: PipelineProject = None,
) -> None:
    """Check a device: keys, versions, runtime, noise floor. Prints its fingerprint."""
    from secateur.cli.device_views import show_devices
    from secateur.pipelines.devices import check_devices

    show_devices(check_devices(name, project), as_json=as_json)


def measure(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    device: Annotated[str, typer.Option("--device", help="As in `secateur device check`.")] = "local",
    against: Annotated[Path | None, typer.Option("--against", help="The ONNX file that ratios refer to.")] = None,
    as_json: Json = False,
    project: PipelineProject = None,
) -> None:
    """Measure an exported model on a device: latency with its interval, throughput, memory, temperature, energy."""
    from secateur.cli.device_views import show_measured
    from secateur.pipelines.devices import measure_file

    show_measured(measure_file(model, device, against, project), as_json=as_json)
