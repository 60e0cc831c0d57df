"""What the benchmarks share: their options, the prepared pipeline, what is kept between runs, the table and the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from secateur.compression.compensation.gram import grams_of
from secateur.compression.saliency import Saliencies
from secateur.definition import Override, load_pipeline
from secateur.errors import SecateurError
from secateur.pipelines.preparation import Prepared, prepare
from secateur.pipelines.ranking import ranked

MODELS = {"resnet20": (20, "CIFAR10_WEIGHTS"), "resnet56": (56, "CIFAR10_WEIGHTS_RESNET56")}
"""Depth, and the environment variable with the file of weights."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the two options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="minutes less: the embedded digits network, fewer repeats")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the figures to this file")
    return parser


def add_model(parser: argparse.ArgumentParser, *, keeps: bool = True) -> None:
    """The options that say which network, for the benchmarks that measure more than one. keeps: with --keep."""
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet20", help="on CIFAR-10; --quick ignores it")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one value of the pipeline, as in `run`",
    )
    if keeps:
        parser.add_argument(
            "--keep",
            metavar="FILE",
            type=Path,
            help="keep what is measured, so that a stopped run goes on where it was",
        )


def loaded_pipeline(*, quick: bool, model: str, overrides: Sequence[str]) -> Prepared:
    """A ResNet on CIFAR-10 (CIFAR10_DATA says where that is, `MODELS` where its weights), or the digits network with --quick."""
    depth, variable = MODELS[model]
    name = "quick" if quick else "cifar10_resnet20"
    network = [] if quick else [f"workload.depth={depth}", f"workload.weights=${{{variable}}}"]
    try:
        definition, root = load_pipeline(name, [Override.parse(text) for text in [*network, *overrides]])
        return prepare(definition, root)
    except SecateurError as error:
        raise SystemExit(f"{error}\n(--quick needs neither data nor weights.)") from error


def prepared_pipeline(
    *, quick: bool, model: str = "resnet20", overrides: Sequence[str] = ()
) -> tuple[Prepared, Saliencies]:
    """The pipeline of `loaded_pipeline`, on one thread, with its Gram matrices and saliency scores."""
    torch.set_num_threads(1)
    prepared = loaded_pipeline(quick=quick, model=model, overrides=overrides)
    space = prepared.space
    if images := prepared.definition.evaluator.refit_images:
        prepared.evaluator.cutting.grams = grams_of(prepared.model, space.groups, prepared.workload, images)
    return prepared, ranked(prepared)


class Kept:
    """Results by key: each is made once, and written to a file of JSON lines where there is one."""

    def __init__(self, file: Path | None, about: Mapping[str, Any]) -> None:
        """about: what the results depend on. Leaves where the file is about something else."""
        self.file, self.results = file, dict[str, Any]()
        header = json.loads(json.dumps(about))
        if file is None:
            return
        if file.is_file():
            first, *lines = [json.loads(line) for line in file.read_text().splitlines()]
            if first != header:
                raise SystemExit(f"{file} is about {first}, and this run is about {header}. Name another file.")
            self.results = {line["key"]: line["result"] for line in lines}
        else:
            file.write_text(json.dumps(header) + "\n")

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The result of a key, made (plain JSON) at the first time of asking."""
        if key not in self.results:
            self.results[key] = make()
            if self.file is not None:
                with self.file.open("a") as stream:
                    stream.write(json.dumps({"key": key, "result": self.results[key]}) + "\n")
        return self.results[key]


def spread(values: Sequence[float], digits: int = 4) -> list[str]:
    """Median, lowest and highest, for a row of a table."""
    return [f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]


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
