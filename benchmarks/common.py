"""What the benchmarks share: their options, the prepared pipeline, the table and the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from secateur.compression.saliency import Saliencies, compute_saliencies
from secateur.definition import Override, load_pipeline
from secateur.errors import SecateurError
from secateur.pipelines.preparation import Prepared, prepare


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the two options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="minutes less: the embedded digits network, fewer repeats")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the figures to this file")
    return parser


def prepared_pipeline(*, quick: bool, overrides: Sequence[str] = ()) -> tuple[Prepared, Saliencies]:
    """ResNet-20 on CIFAR-10 (CIFAR10_DATA and CIFAR10_WEIGHTS say where it is), or the digits network with --quick."""
    torch.set_num_threads(1)
    name = "quick" if quick else "cifar10_resnet20"
    try:
        definition, root = load_pipeline(name, [Override.parse(text) for text in overrides])
        prepared = prepare(definition, root)
    except SecateurError as error:
        raise SystemExit(f"{error}\n(--quick needs neither data nor weights.)") from error
    space = prepared.space
    return prepared, compute_saliencies(prepared.model, space.groups, space.methods, prepared.workload)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table; the first column is text, the others are figures."""
    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    Console(width=120).print(shown)


def write_json(out: Path | None, figures: Mapping[str, Any]) -> None:
    """The figures with what they depend on."""
    if out is None:
        return
    packages = {name: version(name) for name in ("secateur", "torch", "onnxruntime", "optuna", "torch-pruning")}
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()}
    out.write_text(json.dumps({**figures, "machine": machine, "packages": packages}, indent=2) + "\n")
