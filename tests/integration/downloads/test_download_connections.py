"""Connections of the HTTP client: kept, encrypted, and through proxies."""

from __future__ import annotations

import socket
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import fetch
from phasebus.initializer.downloads.errors import TransferError
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError
from tests.support.downloads import QUICK, STALLING, noise, watched
from tests.support.fault_proxy import Fault, fault_proxy
from tests.support.nginx import Nginx, nginx
from tests.support.programs import free_port, program

CONTENT = noise(3_000_000)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with closing(HttpClient(QUICK)) as running:
        yield running


@dataclass
class Played:
    """A server with an answer for each request of each connection, which is then closed."""

    url: str
    heads: list[str] = field(default_factory=list)


@contextmanager
def playing(*connections: list[bytes]) -> Iterator[Played]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        played = Played(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            for answers in connections:
                connection, _ = listener.accept()
                with connection:
                    for answer in answers:
                        head = b""
                        while not head.endswith(b"\r\n\r\n"):
                            head += connection.recv(65536)
                        played.heads.append(head.decode())
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield played
        thread.join(20)
        assert not thread.is_alive(), "a connection was not made, or a request not sent"


def test_connection_is_reused(client: HttpClient) -> None:
    with playing([WHOLE, WHOLE, WHOLE]) as server:
        assert [client.read(server.url, {}, 10) for _ in range(3)] == [b"whole"] * 3


def test_connection_that_was_closed_is_replaced(client: HttpClient) -> None:
    with playing([WHOLE], [WHOLE]) as server:
        assert client.read(server.url, {}, 10) == b"whole"
        assert client.read(server.url, {}, 10) == b"whole"


def test_request_for_a_size_keeps_the_connection(client: HttpClient) -> None:
    answer = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/5\r\nContent-Length: 1\r\n\r\nw"
    with playing([answer, WHOLE]) as server:
        assert client.size(server.url, {}) == (5, None)
        assert client.read(server.url, {}, 10) == b"whole"


def test_error_status_closes_the_connection(client: HttpClient) -> None:
    with playing([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], [WHOLE]) as server:
        with pytest.raises(StatusError, match="answered 503"):
            client.read(server.url, {}, 10)
        assert client.read(server.url, {}, 10) == b"whole"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwh\r\n3\r\nole\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nwhole",
    ],
    ids=["chunked", "until it is closed"],
)
def test_body_without_a_length_arrives(client: HttpClient, answer: bytes) -> None:
    with playing([answer]) as server:
        assert client.read(server.url, {}, 10) == b"whole"


def test_incomplete_chunks_are_an_error(client: HttpClient) -> None:
    with (
        playing([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwh"]) as server,
        pytest.raises(TransferError, match="the connection broke"),
    ):
        client.read(server.url, {}, 10)


def test_proxy_gets_its_own_password_and_the_whole_address(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with playing([WHOLE]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:hunter2@"))
        monkeypatch.setenv("no_proxy", "")
        assert client.read("http://models.example/tiny/a b?x=ü", {}, 10) == b"whole"
    assert proxy.heads[0].startswith("GET http://models.example/tiny/a%20b?x=%C3%BC HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {b64encode(b'me:hunter2').decode()}" in proxy.heads[0]


def test_proxy_of_https_sees_neither_address_nor_credentials(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with playing([b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"]) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(DownloadError, match="the proxy refuses"):
            client.open("https://models.example/tiny?X-Amz-Signature=c0ffee99", {"Authorization": "Bearer hunter2"})
    assert proxy.heads[0].startswith("CONNECT models.example:443")
    assert "hunter2" not in proxy.heads[0]
    assert "c0ffee99" not in proxy.heads[0]


def test_proxy_of_another_kind_is_an_error(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "https://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DownloadError, match="no http:// or socks5:// address"):
        client.open("https://models.example/tiny", {})


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Nginx]:
    """An nginx with TLS and a self-signed certificate, ``certificate.pem``."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    making = [program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    making += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*making, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    more = f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
    with nginx(tmp_path / "nginx", more) as running:
        (running.root / "model.bin").write_bytes(CONTENT)
        yield Nginx(f"https://localhost:{port}", running.root)


def port_of(server: Nginx) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["reset", "truncate", "stall"])
async def test_file_arrives_over_a_tls_connection_that_breaks(
    encrypted: Nginx, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    fault = Fault(kind, 2_000_000)  # type: ignore[arg-type]
    # the first connection is the one that asks for the size, and is used again
    with fault_proxy(port_of(encrypted), lambda number: Fault() if number else fault) as proxy:
        address = f"https://localhost:{proxy.port}/model.bin"
        settings = STALLING if kind == "stall" else QUICK
        async with watched() as seen:
            result = await fetch(seen.bus, address, destination=tmp_path / "there", settings=settings)
    assert result is not None
    assert (tmp_path / "there" / "model.bin").read_bytes() == CONTENT
    assert result.retries >= 1 if kind == "stall" else result.retries == 1
    assert result.fetched < 1.3 * len(CONTENT)


@pytest.mark.anyio
async def test_stalled_tls_connection_is_cancelled_at_once(
    encrypted: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    patient = QUICK.model_copy(update={"stall_seconds": 600.0})
    with fault_proxy(port_of(encrypted), lambda _: Fault("stall", 2_000_000)) as proxy:
        address = f"https://localhost:{proxy.port}/model.bin"
        async with watched() as seen, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: fetch(seen.bus, address, destination=tmp_path / "there", settings=patient))
            with anyio.fail_after(120):
                while proxy.passed < 2_000_000:  # noqa: ASYNC110  # it comes true in another thread
                    await anyio.sleep(0.005)
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_certificate_of_an_unknown_authority_is_rejected(encrypted: Nginx, tmp_path: Path) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"the TLS connection to localhost failed: .*SSL_CERT_FILE"):
            await fetch(seen.bus, f"{encrypted.url}/model.bin", destination=tmp_path / "there", settings=QUICK)
