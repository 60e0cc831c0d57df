"""The page a person looks at, and the table behind it."""

from secateur.report.page import write_report
from secateur.report.table import HEADINGS, Row, headline, rows

__all__ = ["HEADINGS", "Row", "headline", "rows", "write_report"]
