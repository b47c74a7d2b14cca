"""The blame table on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from phasebus.initializer.cli.cells import one_line
from phasebus.telemetry.analysis import blame
from phasebus.telemetry.formatting import format_step
from phasebus.telemetry.journal import Run
from phasebus.telemetry.redaction import redact_name

_BAR_CELLS = 16
_SHORTEST_SHARE = 0.001
_MOST_ROWS = 200
_FILE_WIDTH = 120
_WIDTH_FOR_BARS = 60


def print_blame(run: Run) -> None:
    """Print the steps of `run` by duration, the longest first, without very short ones."""
    console = Console(highlight=False)
    if not console.file.isatty():  # FORCE_COLOR makes a terminal of a file
        console.width = _FILE_WIDTH
    cells = _BAR_CELLS if console.width >= _WIDTH_FOR_BARS else 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("seconds", justify="right", no_wrap=True, min_width=7)
    table.add_column("own", justify="right", no_wrap=True, min_width=6)
    table.add_column("", min_width=cells, no_wrap=True)
    table.add_column(one_line("where the time went"))
    rows = blame(run)
    nodes = sum(row.step.kind == "node" for row in rows)
    shown = [row for row in rows if row.share >= _SHORTEST_SHARE][:_MOST_ROWS]
    for row in shown:
        bar = "█" * round(row.share * cells)
        step = {"kind": row.step.kind, "name": row.step.name, "attributes": row.step.attributes}
        where = one_line(redact_name(format_step(step, row.node if nodes > 1 else "")))
        table.add_row(f"{row.seconds:.2f}", f"{row.own:.2f}", bar, where)
    console.print(table)
    if len(shown) < len(rows):
        limit = shown[-1].share if len(shown) == _MOST_ROWS else _SHORTEST_SHARE
        console.print(f"and {len(rows) - len(shown)} more, each at most {limit:.1%} of the whole")
