"""The secrets that this process has seen under their names, masked wherever they appear later."""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import quote

MASK: Final = "[redacted]"

MIN_CHARACTERS: Final = 5
MIN_LETTERS: Final = 10
MIN_DIGITS: Final = 8
"""A shorter secret, and one that is a shorter word or number, is masked under its name alone: elsewhere the same characters
are a coincidence."""

_WHOLE_WORD_CHARACTERS: Final = 8
"""A shorter secret is masked elsewhere only as a whole word."""

_LEAST_ENCODED_BYTES: Final = 8
_MOST_ENCODED_BYTES: Final = 4096
"""A shorter or longer secret is not looked for in base64 and as hexadecimal digits."""

_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_-]++=*+")
"""What may be base64 or hexadecimal digits."""

MAX_CHARACTERS: Final = 20_000
MAX_SECRETS: Final = 500
"""When there are more, the oldest are forgotten."""

_PLACEHOLDERS: Final = frozenset(
    {
        "changeme", "default", "disabled", "dummy", "empty", "enabled", "example", "localhost", "optional", "password",
        "placeholder", "redacted", "required", "secret", "string", "token", "undefined", "unset",
    }
)  # fmt: skip

_lock = threading.Lock()
_secrets: dict[str, re.Pattern[str] | None] = {}
_ordered: tuple[tuple[str, re.Pattern[str] | None], ...] = ()
_encodings: dict[str, None] = {}
_ordered_encodings: tuple[str, ...] = ()
_listeners: list[Callable[[], None]] = []


def learn_secret(value: str) -> None:
    """Mask `value` from now on wherever it appears, also quoted for an address, JSON, markup, Python or a shell, and encoded."""
    value = value.strip()
    least = (
        MIN_LETTERS if value.isalpha() and value[1:].islower() else MIN_DIGITS if value.isdigit() else MIN_CHARACTERS
    )
    if (
        not least <= len(value) <= MAX_CHARACTERS
        or value.lower() in _PLACEHOLDERS
        or value in MASK
        or value in _secrets
    ):
        return
    content = value.encode("utf-8", "surrogatepass")
    global _ordered, _ordered_encodings  # noqa: PLW0603  # replaced whole, so that readers need no lock
    with _lock:
        for form in _quoted_forms(value, content):
            _secrets[form] = _whole_word(form) if len(form) < _WHOLE_WORD_CHARACTERS else None
        while len(_secrets) > MAX_SECRETS:
            del _secrets[next(iter(_secrets))]
        _ordered = tuple(sorted(_secrets.items(), key=lambda item: -len(item[0])))
        if _LEAST_ENCODED_BYTES <= len(content) <= _MOST_ENCODED_BYTES:
            _encodings.update(dict.fromkeys(_encodings_of(content)))
            while len(_encodings) > MAX_SECRETS:
                del _encodings[next(iter(_encodings))]
            _ordered_encodings = tuple(_encodings)
    for listener in _listeners:
        listener()


def forget_secrets() -> None:
    """Forget all secrets, for tests."""
    global _ordered, _ordered_encodings
    with _lock:
        _secrets.clear()
        _encodings.clear()
        _ordered, _ordered_encodings = (), ()
    for listener in _listeners:
        listener()


def mask_known(text: str) -> str:
    """Return `text` with every known secret masked."""
    for secret, whole_word in _ordered:
        if secret in text:
            text = text.replace(secret, MASK) if whole_word is None else whole_word.sub(MASK, text)
    found = [each for each in _ordered_encodings if each in text]
    return _ENCODED.sub(lambda run: MASK if any(each in run[0] for each in found) else run[0], text) if found else text


def on_change(listener: Callable[[], None]) -> None:
    """Call `listener` whenever the known secrets change."""
    _listeners.append(listener)


def _quoted_forms(value: str, content: bytes) -> set[str]:
    in_json = {json.dumps(value, ensure_ascii=each)[1:-1] for each in (True, False)}
    return {
        value,
        quote(content, safe=""),
        quote(content),
        *in_json,
        *(json.dumps(each, ensure_ascii=False)[1:-1] for each in in_json),  # JSON as a string in JSON
        escape(value),
        repr(value)[1:-1],
        repr(content)[2:-1],
        value.replace("'", "'\"'\"'"),  # of a shell
    }


def _encodings_of(content: bytes) -> set[str]:
    """Return what base64 and hexadecimal digits have of `content` in any case, also behind other bytes: ``me:PASSWORD``.

    Base64 encodes three bytes at a time, so there are three forms, and the first and last characters depend on the bytes
    around (RFC 4648, section 4).
    """
    forms = {content.hex(), content.hex().upper()}
    for before in range(3):
        encoded = b64encode(bytes(before) + content).decode().rstrip("=")
        end = len(encoded) - ((before + len(content)) % 3 > 0)
        inner = encoded[-(-before * 4 // 3) : end]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms


def _whole_word(secret: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])")
