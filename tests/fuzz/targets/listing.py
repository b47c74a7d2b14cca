"""Responses of hubs and stores: listings and headers. They are validated, or rejected with a download error.

The first byte of an input selects the kind of response.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import tempfile
from pathlib import Path

from phasebus.initializer.downloads.checks import safetensors_problem
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.names import check_listing, target_path
from phasebus.initializer.downloads.protocol import Listing
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources import headers
from phasebus.initializer.downloads.sources.hub_listing import read_repository, without_duplicate_weights
from phasebus.initializer.downloads.sources.s3_listing import _read_page
from phasebus.initializer.downloads.sources.web import read_digests, web_source
from phasebus.initializer.downloads.weights import missing_shards_problem

_FOLDER = Path(tempfile.mkdtemp(prefix="phasebus-fuzz-"))
_SIBLINGS = [
    {"rfilename": "a/b.safetensors", "size": 5, "blobId": "a" * 40, "lfs": {"size": 5, "sha256": "a" * 64}},
    {"rfilename": "config.json", "size": 2, "blobId": "b" * 40},
]
_KEYS = b"<Contents><Key>m/a%20b</Key><Size>5</Size><ETag>&quot;e&quot;</ETag></Contents>"
_PAGE = b"<ListBucketResult xmlns='http://s3'>" + _KEYS + b"<IsTruncated>true</IsTruncated>"
_TENSORS = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{}}'

INSTRUMENTED = ["phasebus.initializer.downloads"]
SEEDS = [
    b"h" + json.dumps({"sha": "a" * 40, "siblings": _SIBLINGS}).encode(),
    b"s" + _PAGE + b"<NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
    b"w" + b"a" * 64 + b"  ./config.json\n" + b"B" * 64 + b" *a/b.bin\n",
    (b'rHTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/10\r\nETag: "e"\r\nRetry-After: 3\r\n\r\n'),
    (
        b"r"
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; a=b\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    b"t" + len(_TENSORS).to_bytes(8, "little") + _TENSORS + b"\0\0\0\0",
    b"i" + json.dumps({"weight_map": {"layer": "model-1.safetensors", "other": "model-2.safetensors"}}).encode(),
    b"i" + json.dumps({"weight_map": {"layer": "model-1.safetensors", "other": "m" * 256, "odd": "a\0b"}}).encode(),
    b"u" + b"https://user:pass@host:80/m/SHA256SUMS?sig=x#f",
]
TOKENS = [
    b'"rfilename": ', b'"size": ', b'"blobId": ', b'"lfs": ', b'"sha256": ', b'"sha": ', b"../", b"\\", b"C:", b"//", b"\\ud800",
    b"%2e%2e", b"<!DOCTYPE", b"<!ENTITY a 'b'>", b"&a;", b"<Key>", b"<Size>", b"\r\nContent-Length: ", b"\r\nContent-Range: bytes */",
    b"\r\nRetry-After: ", b"\r\nETag: W/", b"Fri, 31 Dec 9999 23:59:59 GMT", b"99999999999999999999", b"1e999", b"NaN", b"https://",
    b"[::1]", b"[", b"@", b"\x00",
]  # fmt: skip


def check(data: bytes) -> None:
    """Read one response."""
    kind, content = data[:1], data[1:]
    with contextlib.suppress(DownloadError, TransferError):
        if kind == b"h":
            repository = read_repository(content, "hf://o/m")
            _check_files(Listing(files=repository.files, revision=repository.commit))
        elif kind == b"s":
            assert all(isinstance(each["size"], int) for each in _read_page(content)[0])
        elif kind == b"w":
            read_digests(content, "https://host/SHA256SUMS")
        elif kind == b"r":
            _check_headers(content)
        elif kind == b"u":
            web_source(content.decode("utf-8", "surrogateescape"), DownloadSettings()).close()
        elif kind == b"t":
            _check_tensors(content)
        elif kind == b"i":
            (_FOLDER / "model.safetensors.index.json").write_bytes(content)
            missing_shards_problem(_FOLDER)


def _check_files(listing: Listing) -> None:
    check_listing(listing, "hf://o/m")
    without_duplicate_weights(listing.files)
    for file in listing.files:
        path = target_path(_FOLDER, file.name)
        assert _FOLDER in path.resolve().parents
        assert path.name == file.name.rpartition("/")[2]


def _check_headers(content: bytes) -> None:
    try:
        received = http.client.parse_headers(io.BytesIO(content.partition(b"\r\n")[2]))
    except (http.client.HTTPException, ValueError):
        return
    etag = headers.strong_etag(received)
    assert etag is None or etag.isprintable()
    headers.content_encoding(received)
    headers.is_web_page(received)
    pause = headers.retry_after(received)
    assert pause is None or pause >= 0
    length = headers.content_length(received)
    assert length is None or length >= 0
    first, count, size = headers.content_range(received)
    assert first >= 0
    assert count is None or count > 0
    assert size is None or size >= 0


def _check_tensors(content: bytes) -> None:
    path = _FOLDER / "weights"
    path.write_bytes(content)
    with path.open("rb") as file:
        safetensors_problem(file.fileno(), len(content))
