"""The blame table on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from phasebus.telemetry.analysis import blame
from phasebus.telemetry.formatting import format_step
from phasebus.telemetry.journal import Run
from phasebus.telemetry.redaction import redact_name

_BAR_CELLS = 16
_SHORTEST_SHARE = 0.001
_MOST_ROWS = 200
_FILE_WIDTH = 120


def print_blame(run: Run) -> None:
    """Print the steps of `run` by duration, the longest first, without very short ones."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("seconds", justify="right", no_wrap=True, min_width=7)
    table.add_column("own", justify="right", no_wrap=True, min_width=6)
    table.add_column("", min_width=_BAR_CELLS, no_wrap=True)
    table.add_column("where the time went", no_wrap=True)
    rows = blame(run)
    nodes = sum(row.step.kind == "node" for row in rows)
    shown = [row for row in rows if row.share >= _SHORTEST_SHARE][:_MOST_ROWS]
    for row in shown:
        bar = "█" * round(row.share * _BAR_CELLS)
        step = {"kind": row.step.kind, "name": row.step.name, "attributes": row.step.attributes}
        where = Text(redact_name(format_step(step, row.node if nodes > 1 else "")))
        table.add_row(f"{row.seconds:.2f}", f"{row.own:.2f}", bar, where)
    console = Console(highlight=False)
    if not console.file.isatty():  # FORCE_COLOR makes a terminal of a file
        console.width = _FILE_WIDTH
    console.print(table)
    if len(shown) < len(rows):
        limit = shown[-1].share if len(shown) == _MOST_ROWS else _SHORTEST_SHARE
        console.print(f"and {len(rows) - len(shown)} more, each at most {limit:.1%} of the whole")
