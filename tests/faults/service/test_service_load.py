"""The HTTP service while clients hold connections: probes are answered, and the process keeps its memory and descriptors."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from tests.support.service_load import DESCRIPTORS, LoadedService, loaded_service
from tests.support.waiting import wait_until

STEPS = 20_000


@pytest.fixture(scope="module")
def service() -> Iterator[LoadedService]:
    with loaded_service(STEPS) as running:
        running.get("/timeline")  # each step is encoded once, and its text is kept
        yield running


def is_answered(response: bytes) -> bool:
    return response.startswith(b"HTTP/1.1 200 ")


def chunks(response: bytes) -> Iterator[bytes]:
    """Yield the chunks of a response's body (RFC 9112, 7.1)."""
    rest = response.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        yield rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]


def test_probes_are_quicker_than_one_reader_under_idle_and_silent_clients(service: LoadedService) -> None:
    whole_state = median(service.get("/timeline")[1] for _ in range(5))
    before = service.megabytes
    with service.clients(idle=1000, silent=200):
        probes = [service.get("/livez") for _ in range(100)]
        assert all(is_answered(response) for response, _ in probes)
        assert median(seconds for _, seconds in probes) < whole_state
        assert service.process.num_fds() < DESCRIPTORS / 4, "the download of the process has the others"
        # 64 readers with a part of 65,536 characters each, in a few copies; 64 whole states would be 350 MB
        assert service.megabytes < before + 100


def test_a_reader_receives_the_whole_state_while_others_are_silent(service: LoadedService) -> None:
    with service.clients(idle=500, silent=10):
        response, _ = service.get("/timeline")
    state = b"".join(chunks(response))
    assert len(json.loads(state)["steps"]) == STEPS


def test_connections_of_gone_clients_leave_nothing(service: LoadedService) -> None:
    service.get("/metrics")  # its thread remains for a while
    wait_until(lambda: service.process.num_fds() < 20, "earlier connections are closed")
    threads = service.process.num_threads()
    for request in ("/events", "/timeline", "/metrics", "", "/ HTTP/9.9\r\n\r\n" + "\0" * 1000):
        for _ in range(50):
            service.connect(request).close()
    wait_until(lambda: service.process.num_fds() < 20, "their connections are closed")
    assert service.process.num_threads() <= threads


def test_a_flood_of_requests_is_limited_and_probes_are_answered(service: LoadedService) -> None:
    def flood(_: int) -> list[bytes]:
        return [service.get("/metrics")[0][:12] for _ in range(150)]

    with ThreadPoolExecutor(4) as clients:
        floods = [clients.submit(flood, number) for number in range(4)]
        probes = [service.get("/livez")[0] for _ in range(300)]
        answers = [answer for each in floods for answer in each.result()]
    assert all(map(is_answered, probes))
    assert set(answers) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}


def test_a_slow_head_and_a_slow_body_delay_no_other_request(service: LoadedService) -> None:
    slow = [service.connect() for _ in range(300)]
    for number, client in enumerate(slow):
        body = b"Content-Length: 1000000\r\n\r\nx" if number % 2 else b"X-slow: "
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n" + body)
    assert is_answered(service.get("/livez")[0])
    for client in slow:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        client.close()
    wait_until(lambda: service.process.num_fds() < 20, "their connections are closed")


IMPORTED_BY_REQUESTS = """
import encodings.idna, sys, time, urllib.request
from functools import partial
from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Server, build_app

server = Server(partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {}))))
server.start()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while server._server is None or not server._server.started:
    time.sleep(0.01)
before = set(sys.modules)
for path in ("/metrics", "/livez", "/timeline"):
    opener.open(server.url + path, timeout=60).read()
print(sorted(set(sys.modules) - before))
server.close()
"""


def test_requests_import_nothing_that_would_delay_probes() -> None:
    command = [sys.executable, "-c", IMPORTED_BY_REQUESTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
