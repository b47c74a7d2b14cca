"""Parsing and validating the headers of a response (RFC 9110), which are untrusted; the header of a user and password."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from phasebus.initializer.downloads.errors import DownloadError, TransferError

_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
_RATE_LIMIT: Final = re.compile(r";\s*t=([0-9]{1,18})\b")
_NEXT_PAGE: Final = re.compile(r"<([^<>]{1,4096})>[^<>]{0,1024}?;\s*rel=\"?next\b", re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,254}"')
_RESETS: Final = ("RateLimit-Reset", "X-RateLimit-Reset")
_EPOCH: Final = 10**9
"""A limit of requests is reset after a number of seconds below this, or at a time since 1970 above it."""


def content_length(headers: Message) -> int | None:
    """Return the length of a body in bytes; None if the response does not state it.

    Raises:
        DownloadError: The stated length is not a number, or there are two different ones.
    """
    values = {part.strip() for value in headers.get_all("Content-Length", ()) for part in value.split(",")}
    if not values:
        return None
    if len(values) > 1 or headers.get("Transfer-Encoding") is not None:
        raise DownloadError("the response states two different lengths; a proxy or the server is at fault")
    value = values.pop()
    if not _NUMBER.fullmatch(value):
        raise DownloadError(f"the response states the length {value[:40]!r}, which is no number of bytes")
    return int(value)


def content_range(headers: Message) -> tuple[int, int | None, int | None]:
    """Return the offset, the number of bytes, and the size of the whole file that a partial response states.

    The number of bytes is None for an unsatisfiable range. The size is None if the server does not know it.

    Raises:
        TransferError: The response states no range, or an impossible one.
    """
    value = headers.get("Content-Range", "")
    if (matched := _CONTENT_RANGE.fullmatch(value)) is None:
        raise TransferError(f"the response states no range of bytes, but {value[:40]!r}")
    first, last, size = matched.groups()
    whole = None if size == "*" else int(size)
    if first is None:
        return 0, None, whole
    if int(last) < int(first) or (whole is not None and int(last) >= whole):
        raise TransferError(f"the response states the impossible range {value!r}")
    return int(first), int(last) - int(first) + 1, whole


def strong_etag(headers: Message) -> str | None:
    """Return the strong ETag of a response; None without one, or if it is not safe to send back."""
    value = headers.get("ETag", "")
    return value if _STRONG_ETAG.fullmatch(value) else None


def content_encoding(headers: Message) -> str | None:
    """Return the encoding of a body in lower case; None without one."""
    value = headers.get("Content-Encoding", "").strip().lower()
    return None if value in {"", "identity"} else value[:40]


def basic_credentials(parts: SplitResult, header: str = "Authorization") -> dict[str, str]:
    """Return the header with the user and password of an address; none if it has no user."""
    if parts.username is None:
        return {}
    plain = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {b64encode(plain.encode()).decode()}"}


def location(headers: Message) -> str | None:
    """Return the address of a redirect; None without one. Some servers send it in UTF-8, and not quoted."""
    value = headers.get("Location")
    try:
        return value if value is None else value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def next_query(headers: Message) -> str | None:
    """Return the query of the address of the next page that a Link header names (RFC 8288); None without one."""
    matched = _NEXT_PAGE.search(headers.get("Link", ""))
    try:
        return None if matched is None else urlsplit(matched[1]).query
    except ValueError:
        return None


def is_web_page(headers: Message) -> bool:
    """Return whether a body is an HTML page."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in {"text/html", "application/xhtml+xml"}


def retry_after(headers: Message, *, is_limited: bool = True) -> float | None:
    """Return the pause that a server requests, in seconds; None if it requests none.

    It is a number or a date in Retry-After, or the time until requests are allowed again in RateLimit, which the hub sends
    (https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/), or in the headers that were used before it.

    Args:
        headers: The headers.
        is_limited: Whether the server has refused a request for its limits. Others have the headers of limits, too.
    """
    value = headers.get("Retry-After", "").strip()
    if is_limited and not value:
        matched = _RATE_LIMIT.search(headers.get("RateLimit", ""))
        resets = (headers.get(name, "").strip() for name in _RESETS)
        value = matched[1] if matched is not None else next(filter(None, resets), "")
    if _NUMBER.fullmatch(value):
        return max(0.0, float(value) - (time.time() if int(value) > _EPOCH else 0))
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
