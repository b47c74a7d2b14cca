"""Keeping secrets out of everything that leaves the process: spans, metrics, logs, the journal, the page.

Text is searched for what secrets look like; named values are judged by their names as well.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, TypeVar

from phasebus.bus import StepFailed

T = TypeVar("T")

MASK: Final = "[redacted]"

_SENSITIVE_NAME: Final = (
    r"(?:[\w.-]*(?:token(?!i[sz])|secret|passw(?:or)?d|passphrase|credential|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|authorization|signature|session[_-]?key)[\w.-]*)"
)

_COUNT: Final = r"[\w.-]*tokens[\"']?\s*[=:]\s*[\"']?\d{1,12}(?=\.?(?:[\s\"',;&}\])]|$))"
"""A number of tokens, which vLLM has many of."""

_SIGNED_QUERY: Final = (
    r"(?:x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|signature|sig|se|sp|sv|sr|spr|st|skoid|sktid|key-pair-id"
    r"|policy|expires|token|access_token|auth|apikey|api_key|key|password|secret)"
)

_PATTERNS: Final = (
    # userinfo of a URL
    (re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://)[^\s/@?#]+@", re.IGNORECASE), rf"\g<keep>{MASK}@"),
    # signed query parameters of a URL
    (re.compile(rf"(?P<keep>[?&;]{_SIGNED_QUERY}=)[^&#\s\"'<>]+", re.IGNORECASE), rf"\g<keep>{MASK}"),
    # HTTP credentials
    (re.compile(r"(?P<keep>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\g<keep>{MASK}"),
    # tokens that show by their form: Hugging Face, AWS, GitHub, Google, Slack, OpenAI-like, JSON Web Tokens
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), MASK),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{16,}"), MASK),
    (re.compile(r"\bAIza[\w-]{20,}"), MASK),
    (re.compile(r"\bxox[abposr]-[\w-]{8,}"), MASK),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"), MASK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), MASK),
    # name=value, name: value, "name": "value"
    (
        re.compile(
            rf"(?P<keep>\b(?!{_COUNT}){_SENSITIVE_NAME}[\"']?\s*[=:]\s*[\"']?)(?!\[redacted\])[^\s\"',;&}}]+",
            re.IGNORECASE,
        ),
        rf"\g<keep>{MASK}",
    ),
)

_SECRET_KEY: Final = re.compile(_SENSITIVE_NAME, re.IGNORECASE)


def redact(text: str) -> str:
    """Return `text` with everything masked that looks like a secret. Doing so twice changes nothing more."""
    return _remembered(text) if len(text) <= _SHORT else _searched(text)


def _searched(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


_SHORT: Final = 100
_remembered = lru_cache(1024)(_searched)
"""Names and labels come again and again, and searching one takes ten times as long as all else that is done with it."""


def reason(event: StepFailed) -> str:
    """Return why a step failed, free of secrets and never empty."""
    if event.outcome == "cancelled":
        return "it was cancelled"  # what the error says of that is the event loop's own business
    return redact(str(event.error)) or type(event.error).__name__


def redact_value(key: str, value: T) -> T | str:
    """Return `value` as it may be shown under the name `key`."""
    if isinstance(value, str):
        return MASK if value and _SECRET_KEY.fullmatch(key) else redact(value)
    return value
