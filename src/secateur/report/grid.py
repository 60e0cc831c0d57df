"""A table as data: columns that know what they can do without, and rows of text."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.formatting import UNKNOWN


@dataclass(frozen=True)
class Column:
    """A column of a table.

    rank: a narrow terminal leaves out the highest first, and never 0. text: words, set flush left. prose: sentences or lists, which
    may be broken between words.
    """

    heading: str
    rank: int = 1
    text: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a table. best: the model that gets the alias; passed: it is registered, or is the dense model.

    notes: why it failed, stopped early or is refused; not in a cell, because they are sentences.
    """

    cells: tuple[str, ...]
    best: bool = False
    passed: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Columns, and rows with a cell for each of them."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def filled(self) -> Table:
        """The same table without columns that are empty in every row."""
        filled = (i for i in range(len(self.columns)) if any(row.cells[i] not in ("", UNKNOWN) for row in self.rows))
        return self.keep(list(filled))

    def keep(self, chosen: list[int]) -> Table:
        """The same table with the columns at these places alone."""
        rows = (Row(tuple(row.cells[i] for i in chosen), row.best, row.passed, row.notes) for row in self.rows)
        return Table(tuple(self.columns[i] for i in chosen), tuple(rows))
