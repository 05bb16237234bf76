"""A summary on the terminal, through rich. No colours, which a light or dark background could
swallow: bold is the only emphasis."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dhrd_plugin.report.summary import Summary
from dhrd_plugin.report.table import Grid, grid, notes

NAME_WIDTH = 30  # characters before a row's name is wrapped


def rich_report(summary: Summary, console: Console) -> Group:
    """The table and its notes; columns that the console is too narrow for go into further tables
    below."""
    cells = grid(summary)
    unlimited = console.options.update(width=sys.maxsize)
    blocks: list[list[int]] = [[]]
    for i in range(len(cells.heads)):
        wider = _table(cells, [*blocks[-1], i])
        if blocks[-1] and console.measure(wider, options=unlimited).maximum > console.width:
            blocks.append([])
        blocks[-1].append(i)
    tables = [_table(cells, block) for block in blocks]
    spaced = [part for table in tables for part in (table, Text())]
    return Group(*spaced, *(Text(note) for note in notes(summary)))


def _table(cells: Grid, shown: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", max_width=NAME_WIDTH)
    for i in shown:
        table.add_column(Text("\n".join(cells.heads[i])), no_wrap=True)
    for name, row in cells.rows:
        lines = (
            Text("\n").join(Text(text, "bold" if strong else "") for text, strong in row[i])
            for i in shown
        )
        table.add_row(Text(name), *lines)
    return table
