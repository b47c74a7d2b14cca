"""What the serving middleware costs, in requests a second of a real server, beside Starlette's own."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

from tests.benchmarks.measuring import Number, Table
from tests.benchmarks.serving_application import SORTS
from tests.support.programs import ROOT, free_port
from tests.support.waiting import wait_until

REQUESTS = 4000
CONNECTIONS = 8
STARTS = 5
"""How often the servers are started: one process is some per cent faster than its twin, for as long as it lives."""
ROUNDS = 5
"""How many rounds each start is measured for."""
MESSAGES = [{"role": "user", "content": "Describe the sea, and what lives in it. " * 4}] * 4
BODY = json.dumps({"model": "tiny", "messages": MESSAGES}).encode()


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    seconds: dict[str, list[float]] = {sort: [] for sort in SORTS}
    for _ in range(STARTS):
        with _servers() as ports:
            asyncio.run(_measure(ports, seconds))
    yield _compare(seconds)


@contextmanager
def _servers() -> Iterator[dict[str, int]]:
    """Run a server of each sort; give their ports."""
    ports = {sort: free_port() for sort in SORTS}
    servers = [
        subprocess.Popen([sys.executable, "-m", "tests.benchmarks.serving_application", str(port), sort], cwd=ROOT)
        for sort, port in ports.items()
    ]
    try:
        for port in ports.values():
            wait_until(lambda port=port: _listens(port), "the server listens")  # type: ignore[misc]
        yield ports
    finally:
        for server in servers:
            server.terminate()
            server.wait(30)


async def _measure(ports: dict[str, int], seconds: dict[str, list[float]]) -> None:
    for port in ports.values():
        await ask(port)
    for _ in range(ROUNDS):
        for sort, port in ports.items():
            seconds[sort].append(await ask(port))


def _compare(seconds: dict[str, list[float]]) -> Table:
    table = Table(
        "HTTP: time of a request to a FastAPI chat endpoint under uvicorn, 8 connections; ratios in the same round",
        ["middleware", "to none", "to Starlette's BaseHTTPMiddleware", "requests a second"],
        notes=[
            "phasebus: two callbacks that set a header each, a metrics and a span observer.",
            "Starlette's middleware sets the same headers, without spans or metrics.",
            "Requests a second of at least 0.9 of none is a time of at most 1.11.",
            "The endpoint only validates and answers: whatever a request to a model takes, the middleware adds the same.",
        ],
    )
    marks = {"phasebus": (1.11, 1.0)}
    for sort in SORTS:
        columns = [
            Number(median(a / b for a, b in zip(seconds[sort], seconds[other], strict=True)), "x", mark)
            for other, mark in zip(("none", "starlette"), marks.get(sort, (None, None)), strict=True)
        ]
        table.rows.append([sort, *columns, f"{1 / median(seconds[sort]):.0f}"])
    return table


async def ask(port: int, path: str = "/v1/chat/completions", requests: int = REQUESTS) -> float:
    """Return the seconds of one request of so many over `CONNECTIONS` connections."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    )
    began = perf_counter()
    await asyncio.gather(*(_ask(port, head.encode() + BODY, requests // CONNECTIONS) for _ in range(CONNECTIONS)))
    return (perf_counter() - began) / requests


async def _ask(port: int, request: bytes, times: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    writer.close()
    await writer.wait_closed()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
