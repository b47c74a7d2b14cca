"""Bodies that were compressed on the way are decoded, in any pieces and into any memory."""

from __future__ import annotations

import gzip
import zlib
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads.sources.encodings import Decoder, EncodingError, is_supported
from phasebus.initializer.downloads.sources.headers import content_encoding

TEXT = b'{"weight_map": {}}' * 1000


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def decoded(name: str, received: bytes, *, piece: int = 100, room: int = 1000) -> bytes:
    """Return what a decoder makes of some bytes that arrive in pieces."""
    decoder, memory, result = Decoder(name), memoryview(bytearray(room)), b""
    pieces = [received[at : at + piece] for at in range(0, len(received), piece)]
    for each in [*pieces, b""]:
        decoder.add(memoryview(each))
        while count := decoder.decode(memory):
            result += memory[:count]
    return result


@pytest.mark.parametrize(
    ("name", "received"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:])),
        ("gzip", gzip.compress(TEXT) + bytes(20)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
    ids=["gzip", "parts", "padded", "deflate", "raw deflate"],
)
@pytest.mark.parametrize(("piece", "room"), [(1, 1), (7, 1000), (100_000, 1), (100_000, 100_000)])
def test_body_is_decoded_in_any_pieces(name: str, received: bytes, piece: int, room: int) -> None:
    assert decoded(name, received, piece=piece, room=room) == TEXT


@given(
    st.binary(max_size=3000), st.integers(1, 100), st.integers(1, 100), st.sampled_from([gzip.compress, raw_deflate])
)
def test_every_content_is_decoded(content: bytes, piece: int, room: int, compress: object) -> None:
    name = "gzip" if compress is gzip.compress else "deflate"
    assert callable(compress)
    assert decoded(name, compress(content), piece=piece, room=room) == content


def test_empty_body_is_empty() -> None:
    assert decoded("gzip", b"") == b""


@pytest.mark.parametrize(
    ("received", "message"), [(gzip.compress(TEXT)[:-1], "end too early"), (b"not compressed", "are damaged")]
)
def test_body_that_is_cut_off_or_damaged_is_an_error(received: bytes, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        decoded("gzip", received)


@pytest.mark.parametrize(
    ("value", "encoding", "supported"),
    [("GZIP ", "gzip", True), ("identity", None, False), ("br", "br", False), ("gzip, br", "gzip, br", False)],
)
def test_encoding_is_that_of_the_header(value: str, encoding: str | None, supported: bool) -> None:
    headers = Message()
    headers["Content-Encoding"] = value
    assert content_encoding(headers) == encoding
    assert encoding is None or is_supported(encoding) is supported
