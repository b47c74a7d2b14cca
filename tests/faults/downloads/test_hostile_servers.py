"""Servers that send nonsense, name paths, or hold a connection: each is an error, and soon."""

from __future__ import annotations

import gzip
import json
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import fetch
from phasebus.initializer.downloads.sources.http import HttpClient
from phasebus.initializer.downloads.sources.nearness import is_nearer
from tests.support.downloads import QUICK, STALLING, tree, watched
from tests.support.raw_server import Behaviour, RawServer, answering, raw_server, repeating, response

pytestmark = pytest.mark.anyio

ONCE = QUICK.model_copy(update={"attempts": 1})
HURRIED = STALLING.model_copy(update={"attempts": 1})
COMMIT = "c0ffee" * 6 + "beef"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


async def failure(model: str, settings: Any = ONCE) -> str:
    """Return the message of a download that fails."""
    async with watched() as seen:
        with pytest.raises(DownloadError) as raised:
            await fetch(seen.bus, model, settings=settings)
    return str(raised.value)


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (repeating(b"", 0.05), r"did not answer for 0\.5 s"),
        (repeating(b"X", 0.05, b"HTTP/1.1 200 OK\r\nX-Long: "), r"did not answer for 0\.5 s"),
        (repeating(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), r"did not answer for 0\.5 s"),
        (repeating(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0), r"did not answer for 0\.5 s"),
        (repeating(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, 0), r"did not answer for 0\.5 s"),
    ],
    ids=["silence", "dribbled header", "interim responses", "a flood of interim responses", "a flood of hints"],
)
async def test_server_that_never_completes_a_head_counts_as_stalled(behave: Behaviour, message: str) -> None:
    with raw_server(behave) as server:
        assert message.replace("\\", "") in await failure(f"{server.url}/model.bin", HURRIED)


async def test_interim_responses_are_skipped(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    part, whole = response(206, b"b", Content_Range="bytes 0-0/4"), response(body=b"body")
    with raw_server(answering(hints + part, hints + whole)) as server:
        async with watched() as seen:
            await fetch(seen.bus, f"{server.url}/model.bin", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == {"model.bin": b"body"}


async def test_body_that_a_proxy_compresses_is_decoded(tmp_path: Path) -> None:
    compressed = gzip.compress(b"body" * 100_000)
    part = response(206, compressed[:1], Content_Range=f"bytes 0-0/{len(compressed)}", Content_Encoding="gzip")
    whole = response(body=compressed, Content_Encoding="gzip", ETag='"1"')
    with raw_server(answering(part, whole)) as server:
        async with watched() as seen:
            await fetch(seen.bus, f"{server.url}/model.bin", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == {"model.bin": b"body" * 100_000}


async def test_rest_of_compressed_bytes_is_not_taken_for_that_of_a_file() -> None:
    rest = response(206, b"y", Content_Range="bytes 1-1/2", Content_Encoding="gzip")
    whole = response(body=gzip.compress(b"xyz"), Content_Encoding="gzip")
    with (
        raw_server(answering(rest, whole)) as server,
        closing(HttpClient(QUICK)) as client,
        closing(client.open(f"{server.url}/a", {}, 1, '"1"')) as body,
    ):
        assert (body.start, body.size, body.validator) == (0, None, None)
        assert bytes(body.receive(memoryview(bytearray(10)))) == b"xyz"


@pytest.mark.parametrize(
    "rest",
    [
        response(206, b"body"[1:], Content_Range="bytes 1-3/4", ETag='"1"'),
        response(416, Content_Range="bytes */1", ETag='"1"'),
        response(206, b"dy", ETag='"1"'),
    ],
    ids=["earlier bytes", "a shorter file", "no range"],
)
async def test_file_is_requested_whole_where_its_rest_is_not_sent(rest: bytes) -> None:
    with (
        raw_server(answering(rest, response(body=b"body"))) as server,
        closing(HttpClient(QUICK)) as client,
        closing(client.open(f"{server.url}/a", {}, 2, '"1"')) as body,
    ):
        assert (body.start, body.size) == (0, 4)
        assert bytes(body.receive(memoryview(bytearray(10)))) == b"body"


async def test_server_that_dribbles_a_body_counts_as_stalled() -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with raw_server(repeating(b"x", 0.05, start)) as server:
        message = await failure(f"{server.url}/model.bin", HURRIED)
    assert "next to no bytes arrived for 0.5 s" in message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(body=b"x", Content_Encoding="br"), "in the encoding 'br'"),
        (response(body=b"plain", Content_Encoding="gzip"), "the compressed bytes are damaged"),
        (response(body=gzip.compress(b"x" * 99)[:-9], Content_Encoding="gzip"), "the compressed bytes end too early"),
        (response(body=b"x", Content_Length="1, 2"), "two different lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "two different lengths"),
        (
            response(body=b"1\r\nx\r\n0\r\n\r\n", Transfer_Encoding="chunked", Content_Length="1"),
            "two different lengths",
        ),
        (response(body=b"x", Content_Length="²"), "no number of bytes"),
        (response(body=b"x", Content_Length="9" * 5000), "no number of bytes"),
        (response(206, b"x", Content_Range="bytes 5-3/10"), "impossible range"),
        (response(206, b"x", Content_Range="bytes 0-9/5"), "impossible range"),
        (response(206, b"x", Content_Range=f"bytes 0-{'9' * 5000}/*"), "no range of bytes"),
        (response(body=b"<html>", Content_Type="text/html; charset=utf-8"), "a web page in place of 'model.bin'"),
        (response(302, Location="http://[::1"), "malformed"),
        (response(302, Location="http://host:99999999/"), "malformed"),
        (response(302, Location="file:///etc/passwd"), "not https://"),
        (response(302, Location="/model.bin"), "redirects more than 10 times"),
        *(
            (response(302, Location=f"{scheme}://h/x"), "not https://")
            for scheme in ("ftp", "gopher", "data", "jar", "s3")
        ),
        (response(302, Location="http://169.254.169.254/latest/meta-data/"), "an address of this machine"),
        (response(302, Location="http://[fe80::1]/"), "an address of this machine"),
        (response(302, Location="http://h/" + "x" * 70_000), "cannot connect"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "cannot connect"),
        (response(418), "answered 418"),
        (b"HTTP/1.1 OK OK\r\n\r\n", "cannot connect"),
    ],
)
async def test_nonsense_of_a_server_is_an_error(answer: bytes, message: str) -> None:
    with raw_server(answering(answer)) as server:
        assert message in await failure(f"{server.url}/model.bin")


async def test_page_of_a_file_names_the_address_of_the_file() -> None:
    with raw_server(answering(response(body=b"<html>", Content_Type="text/html"))) as server:
        assert "write /resolve/ in place of /blob/" in await failure(f"{server.url}/o/m/blob/main/model.gguf")


async def test_file_that_is_no_gguf_is_an_error() -> None:
    with raw_server(answering(response(body=b"not a model"))) as server:
        assert "a GGUF file begins with 'GGUF'" in await failure(f"{server.url}/model.gguf")


async def test_name_in_a_content_disposition_is_not_used(tmp_path: Path) -> None:
    named = "attachment; filename=\"../../x\"; filename*=UTF-8''..%2F..%2Fx"
    part = response(206, b"b", Content_Range="bytes 0-0/4", Content_Disposition=named)
    whole = response(body=b"body", Content_Disposition=named)
    with raw_server(answering(part, whole)) as server:
        async with watched() as seen:
            await fetch(seen.bus, f"{server.url}/model.bin", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path) == {"there/model.bin": b"body"}


async def test_credentials_are_not_sent_to_another_origin_nor_those_of_a_redirect() -> None:
    with raw_server(answering(response(404))) as other:
        location = other.url.replace("http://", "http://evil:Xq7password@") + "/model.bin?sig=Xq7signature"
        with raw_server(answering(response(302, Location=location))) as server:
            message = await failure(server.url.replace("http://", "http://me:Xq7secret@") + "/model.bin")
            assert "Authorization: Basic" in server.heads[0]
        assert other.heads
        assert not any("authorization" in head.lower() for head in other.heads)
    assert "Xq7" not in message


@pytest.mark.parametrize(
    ("target", "origin", "nearer"),
    [
        ("127.0.0.1", "huggingface.co", True),
        ("localhost", "10.0.0.1", True),
        ("a.localhost.", "hub", True),
        ("::1", "hub", True),
        ("::ffff:127.0.0.1", "hub", True),
        ("0.0.0.0", "hub", True),
        ("169.254.169.254", "hub", True),
        ("169.254.169.254", "127.0.0.1", True),
        ("fe80::1%eth0", "hub", True),
        ("127.0.0.1", "localhost", False),
        ("10.0.0.1", "hub", False),
        ("cdn.example.org", "127.0.0.1", False),
        ("", "hub", False),
    ],
)
def test_redirect_to_this_machine_is_recognized(target: str, origin: str, nearer: bool) -> None:
    assert is_nearer(target, origin) is nearer


async def test_what_a_retry_does_not_change_is_requested_once() -> None:
    with raw_server(answering(response(body=b"x", Content_Encoding="br"))) as server:
        await failure(f"{server.url}/model.bin", QUICK)
        assert len(server.heads) == 1


def described(**values: Any) -> bytes:
    """Return the hub's description of a repository with one file."""
    sibling = {"rfilename": "config.json", "size": 2, "blobId": "a" * 40}
    fields = {name: values.pop(name) for name in [*values] if name in sibling or name == "lfs"}
    return response(body=json.dumps({"sha": COMMIT, "siblings": [{**sibling, **fields}], **values}).encode())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (described(sha="/tmp/victim"), "names '/tmp/victim' as the commit"),
        (described(sha="../../x"), "names '../../x' as the commit"),
        (described(sha=None), "as the commit"),
        (described(sha=7), "names '7' as the commit"),
        (described(rfilename="../../x"), "must not lead out"),
        (described(rfilename="a\u2028b"), "control character"),
        (described(rfilename=7), "no listing of the hub"),
        (described(size=-1), "with the size"),
        (described(size="2"), "with the size"),
        (described(blobId="../x"), "with the git-sha1 digest"),
        (described(lfs={"size": 2, "sha256": "../x"}), "with the sha256 digest"),
        (described(lfs="x"), "no listing of the hub"),
        (described(siblings=[1]), "no listing of the hub"),
        (described(siblings=None), "no listing of the hub"),
        (response(body=b"[]"), "no listing of the hub"),
        (response(body=b"[" * 100_000), "no listing of the hub"),
        (response(body=b"\xff"), "no listing of the hub"),
        (response(body=b"<html>", Content_Type="text/html"), "a web page in place of"),
    ],
)
async def test_listing_that_is_none_is_an_error(
    answer: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(answering(answer)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert message in await failure("org/name", QUICK)
        assert len(server.heads) == 1
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("model", ["hf://o/m@../../x", "hf://o/m@a//b", "hf://../m", "hf://o/..", "o/m@../x"])
async def test_revision_or_repository_that_is_a_path_is_rejected(model: str) -> None:
    message = await failure(model)
    problems = ("not a valid revision", "not a valid repository name", "names no repository", "no model")
    assert any(problem in message for problem in problems), message


async def test_etag_that_is_unsafe_is_not_sent_back(tmp_path: Path) -> None:
    size = 3_000_000
    body = os.urandom(size)
    part = response(206, body[:1], Content_Range=f"bytes 0-0/{size}", ETag='"a b"')
    broken = response(body=body, ETag='"a b"')[:-1_000_000]

    def behave(server: RawServer, connection: socket.socket) -> None:
        if "Range: bytes=0-0" in server.heads[-1]:
            connection.sendall(part)
        elif len(server.heads) == 2:
            connection.sendall(broken)
            raise OSError
        else:
            connection.sendall(response(body=body, ETag='"a b"'))

    with raw_server(behave) as server:
        async with watched() as seen:
            await fetch(seen.bus, f"{server.url}/model.bin", destination=tmp_path / "there", settings=QUICK)
        assert not any("If-Range" in head for head in server.heads)
    assert tree(tmp_path / "there") == {"model.bin": body}
