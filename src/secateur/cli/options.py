"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli import completion

INTERRUPTED = 130
"""The exit code that typer gives Ctrl-C."""

Pipeline = Annotated[
    str,
    typer.Argument(
        help="A name in pipelines/ (such as quick) or a path to a YAML file.", autocompletion=completion.pipelines
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, e.g. search.trials=100. May be repeated."),
]
RunId = Annotated[
    str | None,
    typer.Argument(help="The run's id; the latest one if left out.", autocompletion=completion.runs),
]
Project = Annotated[
    Path,
    typer.Option(
        "--project", help="The project's folder, with pipelines/ and mlruns/.", show_default="the current folder"
    ),
]
PipelineProject = Annotated[
    Path | None,
    typer.Option("--project", help="The project's folder.", show_default="the one that the file lies in"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option("--device", help="Where fine-tuning runs: cpu or cuda.")]
