"""Listing a bucket where the store's client does not: with keys that it rejects (``a//b``, ``a/../b``), or in parts.

One such key makes obstore reject the whole listing, and from a store that knows only the older request for a list it gets
the first page alone. This module sends the same request, ListObjectsV2, signed with an access key
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html), or continues with the older one, and returns
all keys unchanged. It supports access keys only; obstore supports other kinds of credentials.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree as ET

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.sources.http import HttpClient

_MAX_PAGE: Final = 32 * 2**20
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


_VARIABLES: Final = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN", "AWS_TOKEN"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "skip_signature": ("AWS_SKIP_SIGNATURE",),
}


def signing_config(config: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the settings for signing requests, from obstore's settings of a store and from the environment.

    Returns:
        The settings; None if there is no access key and unsigned requests are not allowed.
    """
    found = {key: next(filter(None, map(os.environ.get, names)), "").strip() for key, names in _VARIABLES.items()}
    found = {key: value for key, value in {**found, **config}.items() if value}
    if found.get("skip_signature", "").lower() not in {"true", "1", "yes", "on", "t", "y"}:
        found.pop("skip_signature", None)
    return found if "skip_signature" in found or {"access_key_id", "secret_access_key"} <= found.keys() else None


def list_keys(client: HttpClient, config: Mapping[str, str], bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Return the objects below a folder, each with its ``path``, ``size`` in bytes and ``e_tag``.

    Args:
        client: Sends the requests.
        config: See `signing_config`.
        bucket: The bucket.
        prefix: The folder's key, without a slash at the end; empty for the whole bucket.

    Raises:
        StatusError, DownloadError, TransferError: The folder could not be listed.
    """
    region = str(config.get("region") or "us-east-1")
    endpoint = str(config.get("endpoint") or f"https://s3.{region}.amazonaws.com").rstrip("/")
    below = {"encoding-type": "url", "prefix": f"{prefix}/" if prefix else ""}
    query = {**below, "list-type": "2"}
    found: list[dict[str, Any]] = []
    while True:
        path = f"{urlsplit(endpoint).path}/{quote(bucket, safe='')}"
        encoded = "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(query.items()))
        headers = signed_headers(config, region, urlsplit(endpoint).netloc, path, encoded, dt.datetime.now(dt.UTC))
        parts = urlsplit(endpoint)
        content = client.read(f"{parts.scheme}://{parts.netloc}{path}?{encoded}", headers, _MAX_PAGE)
        objects, following = _read_page(content)
        found += objects
        if following is None:
            return found
        query = {**below, **following}


def _read_page(content: bytes) -> tuple[list[dict[str, Any]], dict[str, str] | None]:
    """Return the objects of a page, and the parameters of the request for the next page; None at the end."""
    objects: list[dict[str, Any]]
    try:
        if b"<!DOCTYPE" in content:
            raise ValueError
        root = ET.fromstring(content)  # noqa: S314  # the size is limited, and there are no entity definitions
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        objects = [
            {
                "path": unquote_plus(each.findtext("Key", "")),
                "size": int(each.findtext("Size", "")),
                "e_tag": each.findtext("ETag"),
            }
            for each in root.iter("Contents")
        ]
    except (ValueError, ET.ParseError):
        raise DownloadError("the store's response is no listing") from None
    if root.findtext("IsTruncated") != "true":
        return objects, None
    if token := root.findtext("NextContinuationToken"):
        return objects, {"list-type": "2", "continuation-token": token}
    marker = unquote_plus(root.findtext("NextMarker", "")) or (objects[-1]["path"] if objects else "")
    return objects, {"marker": marker} if marker else None


def signed_headers(
    config: Mapping[str, str], region: str, host: str, path: str, query: str, time: dt.datetime
) -> dict[str, str]:
    """Return the headers of a GET request at a `time` in UTC; none with AWS_SKIP_SIGNATURE."""
    if "skip_signature" in config:
        return {}
    now = time.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": now}
    if token := config.get("session_token"):
        headers["x-amz-security-token"] = str(token)
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = "\n".join(["GET", path, query, *lines, "", names, _EMPTY])
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{config['secret_access_key']}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{config['access_key_id']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers
