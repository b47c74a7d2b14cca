"""The signature of Amazon's protocol, and what is read from a store's listing."""

from __future__ import annotations

import datetime as dt
from urllib.parse import parse_qsl, urlsplit

import pytest

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.sources.http import HttpClient
from phasebus.initializer.downloads.sources.s3_listing import _read_page, list_keys, signed_headers, signing_config


def test_signature_is_that_of_amazons_own_example() -> None:
    """The example "Get Bucket (List Objects)" of Amazon's reference of signature version 4."""
    headers = signed_headers(
        {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
        "us-east-1",
        "examplebucket.s3.amazonaws.com",
        "/",
        "max-keys=2&prefix=J",
        dt.datetime(2013, 5, 24, tzinfo=dt.UTC),
    )
    assert headers["authorization"].endswith(
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"AWS_ACCESS_KEY_ID": "a"}, None),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, {"access_key_id": "a", "secret_access_key": "b"}),
        ({"AWS_SKIP_SIGNATURE": "true"}, {"skip_signature": "true"}),
        ({"AWS_SKIP_SIGNATURE": "false"}, None),
    ],
)
def test_signing_needs_a_key_or_permission_to_do_without(
    variables: dict[str, str], found: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "SKIP_SIGNATURE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert signing_config({}) == found


def test_page_of_a_listing_has_keys_as_they_are_and_the_next_token() -> None:
    content = b"""<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
      <Contents><Key>m%2F%2Fa+b%23c</Key><Size>3</Size><ETag>&quot;1&quot;</ETag></Contents>
      <NextContinuationToken>next</NextContinuationToken></ListBucketResult>"""
    following = {"list-type": "2", "continuation-token": "next"}
    assert _read_page(content) == ([{"path": "m//a b#c", "size": 3, "e_tag": '"1"'}], following)


@pytest.mark.parametrize(
    ("end", "following"),
    [
        (b"<IsTruncated>true</IsTruncated><NextMarker>m%2Fb+c</NextMarker>", {"marker": "m/b c"}),
        (b"<IsTruncated>true</IsTruncated>", {"marker": "m/a"}),
        (b"<IsTruncated>false</IsTruncated><NextMarker>m%2Fb</NextMarker>", None),
    ],
)
def test_page_without_a_token_is_followed_by_the_older_request(end: bytes, following: dict[str, str] | None) -> None:
    content = b"<ListBucketResult><Contents><Key>m%2Fa</Key><Size>3</Size></Contents>" + end + b"</ListBucketResult>"
    assert _read_page(content)[1] == following


def test_pages_are_requested_until_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, sent = [f"m/{number}" for number in range(5)], []

    def read(_: HttpClient, url: str, *__: object) -> bytes:
        query = dict(parse_qsl(urlsplit(url).query))
        sent.append(sorted(query))
        rest = [key for key in keys if key > query.get("marker", "")]
        page = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in rest[:2])
        return f"<a><IsTruncated>{str(len(rest) > 2).lower()}</IsTruncated>{page}</a>".encode()

    monkeypatch.setattr(HttpClient, "read", read)
    config = {"skip_signature": "true", "endpoint": "http://store.example"}
    found = list_keys(HttpClient(DownloadSettings()), config, "box", "m")
    assert [each["path"] for each in found] == keys
    assert sent == [["encoding-type", "list-type", "prefix"], *[["encoding-type", "marker", "prefix"]] * 2]


@pytest.mark.parametrize(
    "content", [b"", b"<a>", b"<a><Contents><Key>k</Key></Contents></a>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>']
)
def test_response_that_is_no_listing_is_an_error(content: bytes) -> None:
    with pytest.raises(DownloadError, match="no listing"):
        _read_page(content)
