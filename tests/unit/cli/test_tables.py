from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from finished import RECORD, finalist, make
from secateur.cli import tables
from secateur.report import Column, Row, Table, before_and_after


def drawn(table, width, title=None):
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
    tables.show_table(out, table, title)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_never_leaves_the_terminal_nor_breaks_a_number(width):
    content = before_and_after(RECORD)
    text = drawn(content, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    fitted = tables.fit(content, width)
    body = "\n".join(lines)
    for row in fitted.rows:
        line = next(line for line in lines if line.startswith(row.cells[0]))
        assert all(cell in line for cell in row.cells), "each cell stands whole on its row's line"
    for column in fitted.columns:
        assert all(re.search(rf"(^|\s){re.escape(word)}(\s|$)", body) for word in column.heading.split())


def test_what_matters_stays_on_a_narrow_terminal():
    headings = {width: [c.heading for c in tables.fit(before_and_after(RECORD), width).columns] for width in (80, 200)}
    assert {"model", "constraints", "front", "change", "speed-up", "size"} <= set(headings[80])
    assert len(headings[200]) > len(headings[80])
    text = drawn(before_and_after(RECORD), 80)
    missing = [heading for heading in headings[200] if heading not in headings[80]]
    assert "not shown at 80 columns: " in text
    assert all(heading in " ".join(text.split()) for heading in missing)
    assert "not shown at" not in drawn(before_and_after(RECORD), 200)


def test_brackets_go_before_columns_go():
    table = Table((Column("model"), Column("size")), (Row(("a", "400 kB (40%)")),))
    assert tables.fit(table, 40) == table
    assert tables.fit(table, 16).rows[0].cells == ("a", "400 kB")
    both = Table((Column("model"), Column("ms (dense)")), (Row(("a", "0.1 (0.2)")),))
    assert tables.fit(both, 18).rows[0].cells[-1] == "0.1 (0.2)", "the heading promises two figures"


def test_prose_is_broken_between_words_and_all_of_it_is_there():
    reason = "its channels are the model's output and therefore must not be touched by anyone at all"
    table = Table(
        (Column("group", 0, text=True), Column("reason", 0, text=True, prose=True)), (Row(("linear", reason)),)
    )
    text = drawn(table, 40)
    assert max(map(len, text.splitlines())) <= 40
    assert set(reason.split()) <= set(text.split())


def test_notes_stand_below_and_brackets_are_no_markup():
    broken = finalist("f9", 0.5, 0.4, measurements={}, failure="shape [bold] (3,) differs")
    text = drawn(before_and_after(make([broken], None)), 80)
    assert "f9: failed: shape [bold] (3,) differs" in text


def test_empty_columns_are_left_out_of_listings():
    entries = [{"name": "l1", "what": "the sum", "extra": ""}, {"name": "l2", "what": "the root", "extra": ""}]
    assert "extra" not in drawn(tables.listing(entries, "what"), 80)
    entries[1]["extra"] = "ssh"
    assert "extra" in drawn(tables.listing(entries, "what"), 80)
