from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import NO_TOKEN, Access, Limits, Server, build_app
from phasebus.telemetry.service.access import host_of, is_address, is_private_name
from phasebus.telemetry.service.limits import connection_limit
from phasebus.telemetry.service.protocol import LimitedProtocol, UnreadConnection
from tests.support.waiting import wait_until


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(RunIdentity.fresh("n", {}))


@pytest.fixture
def serve(timeline: Timeline) -> Iterator[Any]:
    servers: list[Server] = []

    def serve(
        *hosts: str,
        token: str | None = None,
        address: str = "127.0.0.1",
        limits: Limits | None = None,
        max_readers: int | None = None,
    ) -> Server:
        app = partial(build_app, Metrics("1"), Status(), timeline, max_readers=max_readers)
        servers.append(Server(app, address, access=Access(hosts=hosts, token=token), limits=limits))
        servers[-1].start()
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def get(server: Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{server.url}{path}", headers=headers, timeout=60, trust_env=False, verify=False)


@pytest.mark.parametrize("path", ["/", "/timeline", "/events", "/metrics", "/readyz"])
def test_a_request_to_a_foreign_host_name_is_rejected(serve: Any, path: str) -> None:
    server = serve()
    answer = get(server, path, Host="rebound.example:9464")
    assert answer.status_code == 421
    assert "rebound.example" in answer.text
    assert "service.hosts" in answer.text


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:9464", "localhost", "LOCALHOST.:1", "[::1]:9464", "10.1.2.3", socket.gethostname()),
        *("phasebus.example", "phasebus:9464", "host.docker.internal:9464", "phasebus-node.default.svc:9464"),
        "phasebus-node.default.svc.cluster.local.",
    ],
)
def test_a_request_to_an_address_or_a_known_name_is_answered(serve: Any, host: str) -> None:
    assert get(serve("phasebus.example"), "/timeline", Host=host).status_code == 200


@pytest.mark.parametrize("host", ["svc", "a.internal", "x_1", "a.b.svc.cluster.local"])
def test_a_name_in_no_public_domain_is_private(host: str) -> None:
    assert is_private_name(host)


@pytest.mark.parametrize("host", ["internal.example", "svc.example", "a.cluster.local.example", "a.local", "a%2eb", ""])
def test_a_name_that_can_be_registered_is_not_private(host: str) -> None:
    assert not is_private_name(host)


def test_a_request_without_a_host_is_answered(serve: Any) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b" 200 " in client.recv(100)


@pytest.mark.parametrize("path", ["/", "/events", "/timeline", "/perfetto.json", "/livez"])
def test_a_page_of_another_site_gets_no_response_and_may_link_to_the_page(serve: Any, path: str) -> None:
    server = serve()
    for mode in ("cors", "no-cors", "websocket"):
        assert get(server, path, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}).status_code == 403
    for site in ("same-origin", "same-site", "none"):
        assert get(server, "/livez", **{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}).status_code == 200
    answer = get(server, "/", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert answer.status_code == 200
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "host", "address"),
    [
        ("a.b:80", "a.b", False),
        ("[::1]:80", "::1", True),
        ("::1", "::1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("", "", False),
    ],
)
def test_host_of_returns_the_host_without_its_port(header: str, host: str, address: bool) -> None:
    assert (host_of(header), is_address(host)) == (host, address)


def test_a_service_with_a_token_answers_the_probes_alone_without_it(serve: Any) -> None:
    server = serve(token="s3cret-token")
    assert get(server, "/livez").status_code == 200
    assert (get(server, "/readyz").status_code, get(server, "/readyz").json()) == (503, {"status": "starting"})
    assert "running" in get(server, "/readyz", Authorization="Bearer s3cret-token").json()
    for path in ("/", "/timeline", "/events", "/metrics", "/perfetto.json", "/journal.jsonl"):
        assert get(server, path).status_code == 401
        assert get(server, path, Authorization="Bearer wrong").status_code == 401
        assert get(server, path, Cookie="phasebus_token=wrong").status_code == 401
    assert get(server, "/metrics", Authorization="Bearer s3cret-token").status_code == 200


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # not loopback
def test_a_service_for_other_machines_serves_no_page_without_a_token(serve: Any, address: str) -> None:
    server = serve(address=address)
    for path in ("/livez", "/metrics"):
        assert get(server, path).status_code == 200
    assert get(server, "/readyz").json() == {"status": "starting"}
    for path in ("/", "/timeline", "/events", "/state", "/metrics/../timeline", "//timeline", "/journal.jsonl"):
        answer = get(server, path)
        assert (path, answer.status_code) == (path, 403)
        assert "PHASEBUS_TOKEN" in answer.text
        assert get(server, path, **{"X-Forwarded-For": "127.0.0.1", "Authorization": "Bearer x"}).status_code == 403


def test_a_service_for_other_machines_serves_everything_with_its_token(serve: Any) -> None:
    server = serve(address="0.0.0.0", token="s3cret-token")
    for path in ("/", "/timeline", "/metrics"):
        assert get(server, path).status_code == 401
        assert get(server, path, Authorization="Bearer s3cret-token").status_code == 200


def test_the_token_none_serves_everything_on_every_address(serve: Any) -> None:
    server = serve(address="0.0.0.0", token=NO_TOKEN)
    for path in ("/", "/timeline", "/metrics"):
        assert get(server, path).status_code == 200
        assert get(server, path, Host="rebound.example").status_code == 421


def test_a_browser_receives_the_token_of_its_address_as_a_cookie(serve: Any) -> None:
    server = serve(token="s3cret-token")
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False, verify=False) as browser:
        redirect = browser.get("/?token=s3cret-token")
        assert (redirect.status_code, redirect.headers["location"]) == (303, "/")
        assert "HttpOnly" in redirect.headers["set-cookie"]
        assert browser.get("/timeline").status_code == 200
    assert get(server, "/?token=wrong").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/%5Cevil.example/", "/%5c/evil.example/", "/%0d%0aX-Header:%20y"])
def test_the_address_with_a_token_redirects_to_the_service_alone(serve: Any, path: str) -> None:
    server = serve(token="s3cret-token")
    redirect = get(server, f"{path}?token=s3cret-token")
    assert redirect.status_code == 303
    assert redirect.headers["location"].startswith(("/evil.example", "/%0D%0A"))
    assert "x-header" not in redirect.headers


def test_access_is_read_from_the_environment_where_it_is_not_set() -> None:
    access = Access.from_environment({"PHASEBUS_HOSTS": "a.b, c.d", "PHASEBUS_TOKEN": "s3cret-token"})
    assert access == Access(hosts=("a.b", "c.d"), token="s3cret-token")
    assert Access(token="other").or_else(access) == Access(hosts=("a.b", "c.d"), token="other")
    assert "s3cret-token" not in repr(access)


def test_line_feed_at_the_end_of_a_token_is_not_a_part_of_it(serve: Any) -> None:
    access = Access.from_environment({"PHASEBUS_TOKEN": "s3cret-token\n"})  # from a secret that was made from a file
    assert access.credential == "s3cret-token"
    server = serve(token="s3cret-token\r\n")
    assert get(server, "/timeline", Authorization="Bearer s3cret-token").status_code == 200
    assert Access(token=" \n") == Access()


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(65_536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_idle_connections_beyond_the_limit_are_closed_oldest_first(serve: Any) -> None:
    server = serve(limits=Limits(connections=20))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    assert get(server, "/livez").status_code == 200
    wait_until(lambda: sum(map(is_closed, idle)) >= 40, "the oldest connections are closed")
    assert not is_closed(idle[-1])
    for client in idle:
        client.close()


def test_connections_that_were_not_read_yet_outlast_those_with_half_a_head(serve: Any) -> None:
    server = serve(limits=Limits(connections=20))
    assert get(server, "/livez").status_code == 200
    connections = server._server.server_state.connections
    wait_until(lambda: not connections, "the first one is closed")
    half = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for client in half:
        client.sendall(b"G")
    wait_until(lambda: sum(type(each) is LimitedProtocol for each in connections) == 20, "all of them are read")
    unread = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    wait_until(lambda: sum(type(each) is UnreadConnection for each in connections) == 10, "all of them are accepted")
    wait_until(lambda: sum(map(is_closed, half)) == 10, "as many others are closed")
    assert not any(map(is_closed, unread))
    for client in (*half, *unread):
        client.close()
    wait_until(lambda: not connections, "nothing is left of them")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nX-a: "])
def test_a_connection_without_a_request_is_closed(serve: Any, sent: bytes) -> None:
    server = serve(limits=Limits(head_seconds=0.05))
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(sent)
        wait_until(lambda: is_closed(client), "the connection is closed")


def test_a_head_without_end_is_rejected(serve: Any) -> None:
    with socket.create_connection(("127.0.0.1", serve().port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for _ in range(1000):
                client.sendall(b"X: " + b"y" * 8000 + b"\r\n")
        except OSError:
            return
        wait_until(lambda: is_closed(client), "the connection is closed")


def test_rendering_of_many_series_delays_no_probe(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rendering, answered = threading.Event(), threading.Event()

    def render(metrics: Metrics, accept: str) -> tuple[bytes, str]:
        rendering.set()
        assert answered.wait(60)
        return b"", "text/plain"

    monkeypatch.setattr(Metrics, "render", render)
    server = serve()
    with ThreadPoolExecutor(1) as scrapes:
        scrape = scrapes.submit(get, server, "/metrics")
        try:
            assert rendering.wait(60)
            assert get(server, "/livez").status_code == 200
        finally:
            answered.set()
        assert scrape.result().status_code == 200


def fill(timeline: Timeline, steps: int) -> None:
    for number in range(steps):
        attributes = {"text": "x" * 1000}
        timeline.started(
            LiveStep(id=f"{number:016x}", parent=None, node="n", kind="k", name="s", start=1.0, attributes=attributes)
        )


def test_a_reader_that_does_not_read_is_disconnected_and_delays_no_probe(serve: Any, timeline: Timeline) -> None:
    fill(timeline, 10_000)
    server = serve(limits=Limits(stall_seconds=0.2))
    silent = []
    for _ in range(10):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        silent.append(client)
    assert get(server, "/livez").status_code == 200
    running = server._server.server_state.connections
    wait_until(lambda: len(running) == 0, "all of them are disconnected")
    for client in silent:
        client.close()


def test_the_number_of_connections_follows_the_limit_on_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, connections in ((16, 8), (256, 32), (1024, 128), (1 << 20, 256), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connection_limit() == connections


def test_more_readers_than_the_limit_are_asked_to_come_later(serve: Any) -> None:
    server = serve(max_readers=2)
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False, verify=False) as client:
        with client.stream("GET", "/events") as one, client.stream("GET", "/events") as other:
            assert (one.status_code, other.status_code) == (200, 200)
            reading = one.iter_text(), other.iter_text()  # kept: a response is closed with its iterator
            assert all(map(next, reading))
            third = client.get("/events")
            assert (third.status_code, third.headers["retry-after"]) == (503, "5")
        wait_until(lambda: client.head("/events").status_code == 200, "a place is free again")


def test_the_state_of_many_steps_arrives_whole(serve: Any, timeline: Timeline) -> None:
    fill(timeline, 3000)
    state = get(serve(), "/timeline").json()
    assert len(state["steps"]) == 3000
    assert state == {**timeline.state(), "now": state["now"]}


def test_number_of_connections_is_the_default_where_the_limit_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "getrlimit", deny)
    assert connection_limit() == 256
