"""The secrets that this process has seen under their names, masked wherever they appear later."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
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
_listeners: list[Callable[[], None]] = []


def learn_secret(value: str) -> None:
    """Mask `value` from now on wherever it appears, also quoted for an address or for JSON."""
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
    encoded = value.encode("utf-8", "surrogatepass")
    forms = {
        value,
        quote(encoded, safe=""),
        quote(encoded),
        *(json.dumps(value, ensure_ascii=each)[1:-1] for each in (True, False)),
    }
    global _ordered  # noqa: PLW0603  # replaced whole, so that readers need no lock
    with _lock:
        for form in forms:
            _secrets[form] = _whole_word(form) if len(form) < _WHOLE_WORD_CHARACTERS else None
        while len(_secrets) > MAX_SECRETS:
            del _secrets[next(iter(_secrets))]
        _ordered = tuple(sorted(_secrets.items(), key=lambda item: -len(item[0])))
    for listener in _listeners:
        listener()


def forget_secrets() -> None:
    """Forget all secrets, for tests."""
    global _ordered  # noqa: PLW0603
    with _lock:
        _secrets.clear()
        _ordered = ()
    for listener in _listeners:
        listener()


def mask_known(text: str) -> str:
    """Return `text` with every known secret masked."""
    for secret, whole_word in _ordered:
        if secret in text:
            text = text.replace(secret, MASK) if whole_word is None else whole_word.sub(MASK, text)
    return text


def on_change(listener: Callable[[], None]) -> None:
    """Call `listener` whenever the known secrets change."""
    _listeners.append(listener)


def _whole_word(secret: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])")
