"""Printing a table to a terminal or a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from phasebus.initializer.cli.cells import one_line
from phasebus.telemetry.redaction import redact

_FILE_WIDTH = 140
_MOST_ROWS = 1000
_LEAST_TEXT = 10
"""The fewest characters of a text that are worth a column."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        holds: The kind of its values: ``"s"`` seconds, ``"+"`` a difference in seconds, ``"n"`` a count, ``"id"`` a name to
            copy or a word, ``""`` text. Only text is cut where a terminal is too narrow.
        dropped: Whether a terminal that is too narrow for all columns lacks this one: 0 never, otherwise those with the
            highest number first.
    """

    name: str
    holds: Literal["s", "+", "n", "id", ""] = ""
    dropped: int = 0


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """Print `rows` under `columns`."""
    console = Console(highlight=False)
    if not console.file.isatty():  # FORCE_COLOR makes a terminal of a file
        console.width = _FILE_WIDTH
    cells = [[_cell(column, value) for column, value in zip(columns, row, strict=True)] for row in rows[:_MOST_ROWS]]
    kept = _fitting(columns, cells, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (columns[index] for index in kept):
        if column.holds:
            table.add_column(column.name, justify="left" if column.holds == "id" else "right", no_wrap=True)
        else:
            table.add_column(one_line(column.name))
    for row in cells:
        table.add_row(*(row[index] for index in kept))
    console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print(f"and {len(rows) - _MOST_ROWS} more; --json has all of them")


def _fitting(columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int) -> Sequence[int]:
    """Return the indices of the columns that a terminal with `width` characters has room for."""
    kept = list(range(len(columns)))
    widths = [max([len(column.name), *(len(row[index]) for row in cells)]) for index, column in enumerate(columns)]
    needed = [each if column.holds else min(each, _LEAST_TEXT) for each, column in zip(widths, columns, strict=True)]
    while sum(needed[index] + 2 for index in kept) - 2 > width:
        last = max(kept, key=lambda index: columns[index].dropped)
        if not columns[last].dropped:
            break
        kept.remove(last)
    return kept


def _cell(column: Column, value: object) -> Text:
    if value is None:
        return Text("-")
    if column.holds == "s" and isinstance(value, float):
        return Text(f"{value:.2f}")
    if column.holds == "+" and isinstance(value, float):
        return Text(f"{value:+.2f}", style="red" if value > 0.005 else "green" if value < -0.005 else "")
    return one_line(redact(str(value)))
