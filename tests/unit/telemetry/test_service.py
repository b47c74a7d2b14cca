from __future__ import annotations

import errno
import socket
import threading
import time
import weakref
from contextlib import ExitStack
from typing import Any

import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from starlette.responses import PlainTextResponse

from phasebus.bus import StepStarted, SubscriberStats
from phasebus.telemetry import Metrics, PortTakenError, RunIdentity, Status, Telemetry
from phasebus.telemetry.service import protocol, server
from tests.support.counting import CountingBus
from tests.support.sockets import sends_small_packets_at_once
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio


def started(step: str, kind: str, name: str, since: float) -> StepStarted:
    return StepStarted(step=step, kind=kind, name=name, monotonic_ns=round(since * 1e9))


def telemetry_on_any_port() -> Telemetry:
    return Telemetry(RunIdentity.fresh("node-1", {}), port=0, environment={})


async def test_the_probes_follow_the_start_up() -> None:
    async with telemetry_on_any_port() as telemetry, client_of(telemetry) as client:
        assert (await client.get("/livez")).status_code == 200
        telemetry.status.started(started("a", "node", "node-1", time.monotonic()))
        telemetry.status.started(started("b", "phase", "download", time.monotonic()))
        starting = await client.get("/readyz")
        assert starting.status_code == 503
        assert (starting.json()["status"], starting.json()["phase"]) == ("starting", "download")
        assert [step["name"] for step in starting.json()["running"]] == ["node-1", "download"]
        telemetry.status.ended("b")
        telemetry.status.ended("a")
        telemetry.status.settle()
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")


async def test_a_failed_start_is_not_ready_and_names_the_error() -> None:
    async with telemetry_on_any_port() as telemetry, client_of(telemetry) as client:
        telemetry.status.settle("no such model")
        failed = await client.get("/readyz")
        assert (failed.status_code, failed.json()["status"]) == (503, "failed")
        assert failed.json()["error"] == "no such model"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("text/plain", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_are_in_the_requested_format(accept: str, content_type: str) -> None:
    async with telemetry_on_any_port() as telemetry, client_of(telemetry) as client:
        answer = await client.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(content_type)
        assert "phasebus_ready 0.0" in answer.text


async def test_the_service_answers_while_the_event_loop_is_blocked() -> None:
    async with telemetry_on_any_port() as telemetry:
        answer = httpx.get(f"{service_url(telemetry)}/livez", timeout=60, verify=False)  # noqa: ASYNC210  # blocks this very loop
        assert answer.status_code == 200


async def test_a_taken_port_is_named_before_anything_is_begun() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} on 127.0.0.1.* is taken"):
            Telemetry(port=port, environment={})


def test_address_of_ipv6_is_named_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", unsupported)
    with pytest.raises(PortTakenError, match=r"the service cannot listen on \[::\]:9464: Address family not supported"):
        server._bound("service", "::", 9464)


@pytest.mark.parametrize("host", ["[::]", "0.0.0.0:9464", "http://127.0.0.1"])
def test_host_that_is_more_than_an_address_is_reported_with_what_to_do(host: str) -> None:
    with pytest.raises(PortTakenError, match=r"name an address of this machine alone, such as 0\.0\.0\.0"):
        server._bound("service", host, 0)


def test_connections_send_small_packets_at_once() -> None:
    assert sends_small_packets_at_once(server._bound("service", "127.0.0.1", 0))


async def test_nothing_listens_once_telemetry_is_closed() -> None:
    async with telemetry_on_any_port() as telemetry:
        url = service_url(telemetry)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez", verify=False)  # noqa: ASYNC210


def test_requests_that_arrived_before_the_close_are_answered() -> None:
    service = server.Server(lambda: PlainTextResponse("here"))
    service.start()
    wait_until(lambda: service._server is not None and service._server._loop is not None, "it answers")
    assert service._server is not None
    assert service._server._loop is not None
    blocked = threading.Event()
    service._server._loop.call_soon_threadsafe(blocked.wait)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port))) for _ in range(9)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        service._server.stop()
        blocked.set()
        service.close()
        for client in clients:
            client.settimeout(60)
            assert b" 200 " in client.recv(1000)


def test_client_that_sends_no_more_receives_the_response_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_LAST_RESPONSE_SECONDS", 60.0)
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.to_thread.run_sync(ended.wait)
        for _ in range(20):  # the server reads the end
            await anyio.lowlevel.checkpoint()
        await PlainTextResponse("here")(scope, receive, send)

    service = server.Server(lambda: app)
    service.start()
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        ended.set()
        received = b"".join(iter(lambda: client.recv(1000), b""))
    service.close()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"here")


async def test_a_service_that_cannot_start_refuses_connections_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that waited for an answer of the relay would start later."""

    def fail(*_: object) -> None:
        raise ImportError("no server on this machine")

    monkeypatch.setattr(server, "_uvicorn", fail)
    service = server.Server(lambda: None, name="relay")  # type: ignore[arg-type,return-value]
    service.start()
    wait_until(lambda: caplog.records, "a warning")
    assert caplog.messages == ["the relay does not answer: no server on this machine. The start-up goes on without it"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.url, verify=False)  # noqa: ASYNC210
    service.close()


def test_counts_of_the_bus_are_exported() -> None:
    metrics = Metrics("1")
    metrics.watch_bus(CountingBus(SubscriberStats(name="slow", role="observer", calls=5, errors=1, drops=3)))
    body, _ = metrics.render("text/plain")
    assert b'phasebus_events_dropped_total{name="slow"} 3.0' in body
    assert b'phasebus_subscriber_errors_total{name="slow",role="observer"} 1.0' in body


def test_counts_of_a_bus_that_is_watched_twice_are_exported_once() -> None:
    metrics = Metrics("1")
    bus = CountingBus(SubscriberStats(name="slow", role="observer", drops=3))
    metrics.watch_bus(bus)
    metrics.watch_bus(bus)
    assert b'phasebus_events_dropped_total{name="slow"} 3.0' in metrics.render("text/plain")[0]


def test_counts_of_the_same_name_on_several_buses_are_added() -> None:
    metrics = Metrics("1")
    first, second, third = (CountingBus(SubscriberStats(name="log", role="observer", errors=n)) for n in (4, 2, 1))
    metrics.watch_bus(first)
    metrics.watch_bus(second)
    first.closed = True
    metrics.watch_bus(third)
    left = weakref.ref(first)
    del first
    assert left() is None
    body, _ = metrics.render("text/plain")
    assert body.count(b"phasebus_subscriber_errors_total{") == 1
    assert b'phasebus_subscriber_errors_total{name="log",role="observer"} 7.0' in body


def test_the_phase_shown_is_the_one_that_runs_longest() -> None:
    status = Status()
    assert status.phase is None
    status.started(started("b", "phase", "placement_group", 2.0))
    status.started(started("a", "phase", "download", 1.0))
    assert status.phase == "download"


def client_of(telemetry: Telemetry) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service_url(telemetry), timeout=60, verify=False)


def service_url(telemetry: Telemetry) -> str:
    assert telemetry.service is not None
    return telemetry.service.url
