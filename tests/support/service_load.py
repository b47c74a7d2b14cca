"""The HTTP service in a process of its own, and clients that load it. ``python -m tests.support.service_load STEPS``."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter, time

import psutil

from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Server, build_app
from tests.support.programs import ROOT

DESCRIPTORS = 1024
"""The soft limit on the file descriptors of the process: that of most systems."""


class LoadedService:
    """A running service.

    Attributes:
        port: Its port.
        process: Its process.
    """

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.port = port
        self.process = process

    @property
    def megabytes(self) -> float:
        """The resident memory of the process, in MB."""
        return float(self.process.memory_info().rss) / 1e6

    def connect(self, request: str = "", receive_buffer: int | None = None) -> socket.socket:
        """Return a connection that has sent `request`, a path, if there is one, and receives nothing."""
        client = socket.socket()
        client.settimeout(60)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        if request:
            client.sendall(f"GET {request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client

    def get(self, path: str = "/livez") -> tuple[bytes, float]:
        """Request `path` over a new connection, as a kubelet does; return the response, and the seconds it took."""
        began = perf_counter()
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            received = bytearray()
            while part := client.recv(1 << 20):
                received += part
        return bytes(received), perf_counter() - began

    @contextmanager
    def clients(self, idle: int, silent: int) -> Iterator[list[socket.socket]]:
        """Open connections for the block: `idle` ones send nothing, `silent` ones request the events and read nothing."""
        with contextlib.ExitStack() as stack:
            made: list[socket.socket] = []
            for number in range(idle + silent):
                client = self.connect("/events", 4096) if number < silent else self.connect()
                made.append(stack.enter_context(client))
            yield made


@contextmanager
def loaded_service(steps: int) -> Iterator[LoadedService]:
    """Run a service whose timeline has `steps` steps; this process may open as many files as it needs meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    command = [sys.executable, "-m", "tests.support.service_load", str(steps)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield LoadedService(int(process.stdout.readline()), psutil.Process(process.pid))
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(60)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main(steps: int) -> None:
    """Serve a timeline of `steps` steps until standard input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    timeline = Timeline(RunIdentity.fresh("node-1", {}))
    for number in range(steps):
        attributes = {"process": f"Worker_{number % 8}", "model": "org/name", "file": f"model-{number:05d}.safetensors"}
        timeline.started(
            LiveStep(
                id=f"{number:016x}",
                parent=None if number == 0 else f"{number // 10:016x}",
                node="node-1",
                kind="node" if number == 0 else "file",
                name=f"step {number}",
                start=time(),
                attributes=attributes,
            )
        )
    server = Server(partial(build_app, Metrics("1"), Status(), timeline))
    server.start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
