"""Tables that fit a terminal: whole words and numbers, and fewer columns where there is no room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from secateur.report import Column, Row, Table

GAP = 2
"""Spaces between columns; one of them is what rich puts where other boxes have their line."""
PROSE = 24
"""Least width of a column of sentences, which are broken between words."""
UNLIMITED = 200
"""Width off a terminal: a log file or a pipe keeps tables whole."""


def console() -> Console:
    """Standard output, wide where it is no terminal."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=UNLIMITED)


def say(out: Console, text: str, style: str = "") -> None:
    """A sentence: broken between words on a terminal, one line in a file. Square brackets are just that."""
    out.print(Text(text, style=style), soft_wrap=not out.is_terminal)


def show_table(out: Console, table: Table, title: str | None = None) -> None:
    """A table with as many of its columns as fit, then the notes on its rows, then which columns were left out."""
    fitted = fit(table.filled(), out.width)
    out.print(_drawn(fitted, title))
    for row in table.rows:
        for note in row.notes:
            say(out, f"{row.cells[0]}: {note}", "yellow")
    left_out = [c.heading for c in table.filled().columns if c.heading not in {k.heading for k in fitted.columns}]
    if left_out:
        say(out, f"not shown at {out.width} columns: {', '.join(left_out)}", "dim")


def fit(table: Table, width: int) -> Table:
    """The table within a width: first what stands in brackets goes, then the columns of the highest rank, one by one."""
    if needed(table) > width:
        table = Table(table.columns, tuple(_brief(table, row) for row in table.rows))
    while needed(table) > width and any(column.rank for column in table.columns):
        worst = max(range(len(table.columns)), key=lambda i: (table.columns[i].rank, i))
        table = table.keep([i for i in range(len(table.columns)) if i != worst])
    return table


def _brief(table: Table, row: Row) -> Row:
    """Without intervals and shares in brackets, unless the heading promises two figures."""
    cells = (
        cell if column.prose or "(" in column.heading else cell.partition(" (")[0]
        for column, cell in zip(table.columns, row.cells, strict=True)
    )
    return Row(tuple(cells), row.best, row.passed, row.notes)


def needed(table: Table) -> int:
    """Characters that a table takes at least, when only prose is broken."""
    return sum(_least(table, i) for i in range(len(table.columns))) + GAP * len(table.columns)


def _least(table: Table, place: int) -> int:
    column, cells = table.columns[place], [row.cells[place] for row in table.rows]
    longest = max(map(len, column.heading.split()), default=0)
    if column.prose:
        words = max((len(word) for cell in cells for word in cell.split()), default=0)
        return max(longest, words, min(PROSE, max(map(len, cells), default=0)))
    return max(longest, *map(len, cells)) if cells else longest


def _drawn(table: Table, title: str | None) -> RichTable:
    drawn = RichTable(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        padding=(0, GAP - 1, 0, 0), show_edge=False,
    )  # fmt: skip
    for i, column in enumerate(table.columns):
        least = _least(table, i)
        heading = Text(column.heading if column.prose else _broken(column.heading, least))
        drawn.add_column(
            heading,
            justify="left" if column.text else "right",
            vertical="top",
            min_width=least,
            no_wrap=not column.prose,
            overflow="fold",
        )
    for row in table.rows:
        style = "bold green" if row.best else ("" if row.passed else "dim")
        drawn.add_row(*map(Text, row.cells), style=style)
    return drawn


def _broken(heading: str, width: int) -> str:
    """A heading in lines of whole words, none longer than a width."""
    lines = [""]
    for word in heading.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return "\n".join(lines)


def listing(entries: Sequence[Mapping[str, str]], prose: str) -> Table:
    """Entries with the same keys as a table of words. prose: the key of the sentences; the last keys are left out first."""
    columns = tuple(
        Column(key, 0 if i == 0 or key == prose else i, text=True, prose=key == prose)
        for i, key in enumerate(entries[0])
    )
    return Table(columns, tuple(Row(tuple(entry.values())) for entry in entries))
