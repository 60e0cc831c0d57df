"""The page a person looks at, and the table behind it."""

from secateur.report.grid import Column, Row, Table
from secateur.report.summary import headline
from secateur.report.table import before_and_after, gate_table

__all__ = ["Column", "Row", "Table", "before_and_after", "gate_table", "headline"]
