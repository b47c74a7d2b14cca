"""How quick the probes of the HTTP service are, and what memory it takes, while clients hold its connections."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import quantiles

from tests.benchmarks.measuring import Number, Table
from tests.support.service_load import DESCRIPTORS, LoadedService, loaded_service

STEPS = 50_000
IDLE, SILENT = 1000, 200
PROBES = 200


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    table = Table(
        f"service: a probe over a new connection, {STEPS} steps in the timeline, at most {DESCRIPTORS} open files",
        ["load", "/livez p50", "p99", "/readyz p50", "p99", "memory", "open files"],
        notes=[
            f"{IDLE} connections that send nothing, and {SILENT} that request the event stream and read nothing of it.",
            "A reader's first state is 14 MB; the memory beside the first row is what the clients cost.",
        ],
    )
    with loaded_service(STEPS) as service:
        service.get("/timeline")  # encodes each step once
        table.rows.append(_row("none", service, 0))
        before = service.megabytes
        with service.clients(IDLE, SILENT):
            table.rows.append(_row(f"{IDLE} idle, {SILENT} silent", service, before))
    yield table


def _row(name: str, service: LoadedService, before: float) -> list[Number | str | None]:
    cells: list[Number | str | None] = [name]
    for path in ("/livez", "/readyz"):
        cuts = quantiles([service.get(path)[1] * 1000 for _ in range(PROBES)], n=100)
        cells += [Number(cuts[49], " ms", 100), Number(cuts[98], " ms", 100)]
    memory = service.megabytes
    cells.append(Number(memory, " MB", None if not before else before + 100))
    cells.append(Number(service.process.num_fds(), "", DESCRIPTORS / 4))
    return cells
