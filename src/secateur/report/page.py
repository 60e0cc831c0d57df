"""One self-contained HTML file: nothing is fetched when it is opened, and it reads on a phone, on paper and in the dark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from secateur.files import write
from secateur.formatting import outcome
from secateur.records import RunRecord, Version
from secateur.report import counts
from secateur.report.audit import audit_facts
from secateur.report.device import device_table
from secateur.report.front_figure import ARM_NAMES, AXES, front_figure
from secateur.report.group_figures import cuts_figure, sensitivity_figure
from secateur.report.hints import hints
from secateur.report.loading import snippets
from secateur.report.method import definition_text, facts
from secateur.report.paths import paths_table
from secateur.report.summary import cards, result, warnings
from secateur.report.table import before_and_after, gate_table
from secateur.report.timing import spent
from secateur.report.training_figure import trained, training_figure

ASKED = ("latency", "download", "nonzero")
"""Costs that the search measures only where the definition names them."""


def write_report(record: RunRecord, path: Path, versions: Sequence[Version] | None = None) -> Path:
    """Write the page. versions: what was registered, None before that. Returns its path.

    Raises StateError where the disk does not take it.
    """
    page = _environment().get_template("page.html").render(_context(record, versions))
    write(path, page + "\n")
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("secateur.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = code
    return environment


def code(text: str) -> Markup:
    """A sentence with what stands in backticks as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _context(record: RunRecord, versions: Sequence[Version] | None) -> dict[str, Any]:
    """What the template shows; a section whose value is empty is left out."""
    return {
        "record": record,
        "versions": versions or (),
        "written_before_registration": versions is None and record.definition.get("register") is not None,
        "result": result(record),
        "warnings": warnings(record),
        "cards": cards(record),
        "axes": _axes(record),
        "before_and_after": before_and_after(record),
        "searched": counts.searched(record),
        "finalists": counts.finalists(record),
        "reasons": counts.reasons(record),
        "gate": gate_table(record),
        "gate_outcome": outcome(record.comparison) if record.comparison is not None else "",
        "snippets": snippets(record, versions or ()),
        "device": device_table(record),
        "paths": paths_table(record),
        "hints": hints(record),
        "arm_names": ARM_NAMES,
        "audit": audit_facts(record),
        "trained": trained(record),
        "spent": spent(record),
        "facts": facts(record),
        "definition": definition_text(record),
        "figures": _figures(record),
        "style": _asset("page.css"),
        "script": _asset("page.js"),
        "plotly": _asset("vendored/plotly-basic.min.js"),
    }


def _axes(record: RunRecord) -> list[str]:
    """Costs that the front is shown over: those that every trial has, objectives first."""
    known = (axis for axis in AXES if axis in record.dense["search"])
    shown = [axis for axis in known if axis not in ASKED or axis in record.objectives]
    return sorted(shown, key=lambda axis: axis not in record.objectives)


def _figures(record: RunRecord) -> Mapping[str, Any]:
    """Name → plotly's JSON."""
    figures = {f"front-{axis}": front_figure(record, axis) for axis in _axes(record)}
    if record.finalists:
        figures["cuts"] = cuts_figure(record)
    if trained(record):
        figures["training"] = training_figure(record)
    if record.sensitivities:
        figures["sensitivity"] = sensitivity_figure(record)
    return {name: json.loads(figure.to_json()) for name, figure in figures.items()}


def _asset(name: str) -> Markup:
    """A file of this package, which may stand in the page as it is."""
    return Markup((files("secateur.report") / name).read_text(encoding="utf-8"))  # noqa: S704 # our own file
