"""The open sockets of a process and what they wait for, from the kernel's tables of its network namespace."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from phasebus.printable import address_text

_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_TABLES: Final = ("tcp", "tcp6", "udp", "udp6")
_STATES: Final[Mapping[str, str]] = {
    "01": "connected",
    "02": "connecting: no answer yet",
    "03": "accepting",
    "04": "closing",
    "05": "closing",
    "08": "closed by the other end",
    "0A": "listening",
}
_MAX_BYTES: Final = 4 * 2**20
_DNS_PORT: Final = 53


def sockets_of(pid: int) -> tuple[str, ...]:
    """Return a line for each TCP and UDP socket of a process; those with data in their queues and connections first."""
    inodes = set(_inodes(pid))
    lines: list[tuple[int, str]] = []
    for table in _TABLES if inodes else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            with Path(f"/proc/{pid}/net/{table}").open(encoding="ascii", errors="replace") as file:
                rows = file.read(_MAX_BYTES).splitlines()[1:]
            for row in rows:
                columns = row.split()
                if columns[9] in inodes:
                    lines.append(_described(table, columns))
    return tuple(text for _, text in sorted(lines))


def _inodes(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if found := _SOCKET.match(os.readlink(entry.path)):  # noqa: PTH115
                    yield found[1]


def _described(table: str, columns: list[str]) -> tuple[int, str]:
    """Return a socket's line, and a number by which lines are ordered."""
    local, remote = _address(columns[1]), _address(columns[2])
    sent, received = (int(each, 16) for each in columns[4].split(":"))
    port = int(columns[2].rpartition(":")[2], 16)
    is_connected = port != 0
    if table.startswith("udp"):
        state = "a question to a name server" if port == _DNS_PORT else "datagrams"
    else:
        state = _STATES.get(columns[3], "closing")
    queues = ([f"{sent} B not taken by the other end"] if sent else []) + ([f"{received} B unread"] if received else [])
    if not queues and state == "connected":
        queues = ["no data in either direction"]
    ends = f"{local} > {remote}" if is_connected else local
    order = (0 if sent or received else 1) if is_connected else 2
    return order, ", ".join([f"{table.rstrip('6')} {ends} {state}", *queues])


def _address(text: str) -> str:
    """Return an address of the kernel's tables, whose words have the machine's byte order, with its port."""
    host, _, port = text.partition(":")
    words = [struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    name = socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:")
    return address_text(name, int(port, 16))
