"""A run's figures as rows for a data frame, and as a table for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from secateur.records import Measurement, RunRecord
from secateur.report import before_and_after, headline
from secateur.report.table import constraints, place

Rows = list[dict[str, Any]]


def finalists_table(record: RunRecord) -> tuple[Rows, str]:
    """The dense model and the finalists, and the name of the column that tells them apart."""
    dense = record.dense
    rows: Rows = [
        {
            "model": "dense",
            "precision": "float32",
            "constraints": None,
            "front": None,
            "passed": True,
            **_figures(dense["selection"]),
            "searched_accuracy": _value(dense["search"].get("accuracy")),
            "test_accuracy": _value(dense["test"].get("accuracy")),
        }
    ]
    rows += [
        {
            "model": finalist.name,
            "precision": finalist.precision,
            "constraints": constraints(record, finalist),
            "front": place(record, finalist),
            "passed": finalist in record.registered,
            **_figures(finalist.measurements),
            "searched_accuracy": _value(finalist.searched.get("accuracy")),
            "test_accuracy": _value(record.verdicts[finalist.name].test if finalist.name in record.verdicts else None),
        }
        for finalist in record.finalists
    ]
    return rows, "model"


def trials_table(record: RunRecord) -> tuple[Rows, str]:
    """All trials of the search, and the name of the column with their numbers."""
    rows = []
    for trial in record.trials:
        evaluation = trial.evaluation
        widths = {f"{g.name}.channels": evaluation.candidate.width(g.name, g.width) for g in record.groups}
        rows.append(
            {
                "trial": trial.number,
                "arm": trial.arm,
                "label": trial.label,
                "same_as": trial.same_as,
                "failure": evaluation.failure,
                "stopped": evaluation.stopped,
                "seconds": evaluation.seconds,
                **_figures(evaluation.measurements),
                **widths,
            }
        )
    return rows, "trial"


def _figures(measurements: Mapping[str, Measurement]) -> dict[str, float]:
    figures = {}
    for name, measurement in measurements.items():
        figures[name] = measurement.value
        if measurement.interval is not None:
            figures[f"{name}_low"], figures[f"{name}_high"] = measurement.interval
        figures |= {f"{name}_{detail}": value for detail, value in measurement.details.items() if detail == "p50_ms"}
    return figures


def _value(measurement: Measurement | None) -> float | None:
    return None if measurement is None else measurement.value


def html_table(record: RunRecord) -> str:
    """The table of the report, without its page."""
    table = before_and_after(record)
    head = "".join(f"<th>{escape(column.heading)}</th>" for column in table.columns)
    lines = []
    for row in table.rows:
        weight = ' style="font-weight:bold"' if row.best else ""
        lines.append(f"<tr{weight}>{''.join(f'<td>{escape(cell)}</td>' for cell in row.cells)}</tr>")
    return (
        f"<p>{escape(headline(record))}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
