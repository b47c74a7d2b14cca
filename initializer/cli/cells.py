"""Cells of tables on a terminal."""

from __future__ import annotations

from rich.text import Text


def one_line(text: str) -> Text:
    """Return `text` as a cell that is cut where a terminal is too narrow for the table.

    Columns that do not wrap all shrink alike, the numbers to nothing. So a column of texts has to be one that wraps, and its
    cells must not.
    """
    return Text(text, no_wrap=True, overflow="ellipsis")
