"""What single paths through networks with gates take."""

from __future__ import annotations

from secateur.formatting import UNKNOWN, path_name, ratio, short
from secateur.records import RunRecord
from secateur.report.grid import Column, Row, Table

COLUMNS = (
    Column("model", text=True),
    Column("path", text=True),
    Column("MACs"),
    Column("latency ratio"),
    Column("min ms"),
    Column("dense min ms"),
)


def paths_table(record: RunRecord) -> Table | None:
    """The paths of every finalist with gates; None without any."""
    rows = []
    for finalist in record.finalists:
        for path in finalist.paths:
            details = path.latency.details if path.latency else {}
            shown = (f"{details[name]:.3f}" if name in details else UNKNOWN for name in ("min_ms", "dense_min_ms"))
            cells = (finalist.name, path_name(path, finalist.paths), short(path.macs), ratio(path.latency), *shown)
            rows.append(Row(cells, best=finalist.name == record.knee))
    return Table(COLUMNS, tuple(rows)).filled() if rows else None
