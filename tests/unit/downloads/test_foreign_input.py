"""Whatever a server sends as a listing or as headers is accepted or a download error, never another exception."""

from __future__ import annotations

import json
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.names import check_listing
from phasebus.initializer.downloads.protocol import Listing
from phasebus.initializer.downloads.sources import headers as headers_module
from phasebus.initializer.downloads.sources.hub_listing import read_repository
from phasebus.initializer.downloads.sources.s3_listing import _read_page

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SIBLINGS = st.fixed_dictionaries(
    {},
    optional={
        "rfilename": st.text(max_size=10) | VALUES,
        "size": st.integers() | VALUES,
        "blobId": st.just("a" * 40) | VALUES,
        "lfs": st.fixed_dictionaries({"size": VALUES, "sha256": st.just("a" * 64) | VALUES}) | VALUES,
    },
)
DESCRIPTIONS = st.fixed_dictionaries(
    {}, optional={"sha": st.just("a" * 40) | VALUES, "siblings": st.lists(SIBLINGS, max_size=3) | VALUES}
)


@given(st.binary(max_size=200) | (DESCRIPTIONS | VALUES).map(lambda value: json.dumps(value).encode()))
def test_any_response_of_a_hub_is_a_valid_listing_or_an_error(content: bytes) -> None:
    try:
        repository = read_repository(content, "hf://o/m")
        check_listing(Listing(files=repository.files, revision=repository.commit), "hf://o/m")
    except DownloadError:
        return
    assert repository.commit == "a" * 40
    assert all(file.size is None or file.size >= 0 for file in repository.files)


@given(st.binary(max_size=200) | st.text(alphabet="<>/ContentsKeySizeETag&;0123", max_size=80).map(str.encode))
def test_any_response_of_a_store_is_a_listing_or_an_error(content: bytes) -> None:
    try:
        objects, _ = _read_page(content)
    except DownloadError:
        return
    assert all(isinstance(each["size"], int) for each in objects)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (headers_module.content_length, "Content-Length"),
        (headers_module.content_range, "Content-Range"),
        (headers_module.strong_etag, "ETag"),
        (headers_module.content_encoding, "Content-Encoding"),
        (headers_module.is_web_page, "Content-Type"),
        (headers_module.retry_after, "Retry-After"),
        (headers_module.retry_after, "X-RateLimit-Reset"),
        (headers_module.location, "Location"),
        (headers_module.next_query, "Link"),
    ],
)
@given(value=st.text(st.characters(codec="latin-1"), max_size=40) | st.from_regex(r"bytes [0-9]*-[0-9]*/[0-9*]*"))
def test_any_header_is_accepted_or_an_error(function: object, name: str, value: str) -> None:
    headers = Message()
    headers[name] = value
    reason = "accepted"
    try:
        function(headers)  # type: ignore[operator]
    except (DownloadError, TransferError) as error:
        reason = str(error)
    assert reason
