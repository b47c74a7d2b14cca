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


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        holds: The kind of its values: ``"s"`` seconds, ``"+"`` a difference in seconds, ``"n"`` a count, ``"id"`` a name to
            copy or a word, ``""`` text. Only text is cut where a terminal is too narrow.
    """

    name: str
    holds: Literal["s", "+", "n", "id", ""] = ""


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """Print `rows` under `columns`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        if column.holds:
            table.add_column(column.name, justify="left" if column.holds == "id" else "right", no_wrap=True)
        else:
            table.add_column(one_line(column.name))
    for row in rows[:_MOST_ROWS]:
        table.add_row(*(_cell(column, value) for column, value in zip(columns, row, strict=True)))
    console = Console(highlight=False)
    if not console.file.isatty():  # FORCE_COLOR makes a terminal of a file
        console.width = _FILE_WIDTH
    console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print(f"and {len(rows) - _MOST_ROWS} more; --json has all of them")


def _cell(column: Column, value: object) -> Text:
    if value is None:
        return Text("-")
    if column.holds == "s" and isinstance(value, float):
        return Text(f"{value:.2f}")
    if column.holds == "+" and isinstance(value, float):
        return Text(f"{value:+.2f}", style="red" if value > 0.005 else "green" if value < -0.005 else "")
    return one_line(redact(str(value)))
