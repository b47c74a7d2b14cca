"""Any value as text or a number that JSON, a terminal, a metric and a span can carry."""

from __future__ import annotations

import math
from typing import Final

MAX_CHARACTERS: Final = 65_536
"""Longer text is cut."""

_MAX_INTEGER: Final = 2**63
_UNPRINTABLE: Final = (
    *(each for each in range(0x20) if chr(each) not in "\t\n"),
    *range(0x7F, 0xA0),
    *(0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # marks that reorder a line
    *(0x2028, 0x2029, 0xFEFF),
    *range(0xD800, 0xE000),  # lone surrogates
)
_ESCAPES: Final = {each: chr(each).encode("unicode_escape").decode() for each in _UNPRINTABLE}


def printable_text(text: str) -> str:
    """Return `text` with an escape in place of each character that cannot be printed."""
    if text.isprintable():
        return text
    return text.replace("\r\n", "\n").translate(_ESCAPES)


def bounded_text(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return at most `limit` characters of `text`, and how many more there were.

    A word that the limit cuts is left out: it may be part of a secret.
    """
    if len(text) <= limit:
        return text
    kept = text[: limit - 40]
    least = max(0, limit - 296)
    kept = kept[: max(least, *(kept.rfind(space, least) for space in (" ", "\n", "\t", ",", ";")))]
    return f"{kept}… ({len(text) - len(kept)} more characters)"


def printable_value(value: object) -> str | int | float | bool:
    """Return a value as an attribute that every output can carry: others than text and finite numbers become text."""
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if -_MAX_INTEGER <= value < _MAX_INTEGER:
            return int(value)
        return str(value) if value.bit_length() < 2000 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:MAX_CHARACTERS]).decode("utf-8", "backslashreplace")
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # deep nesting, or a __repr__ that raises
        return f"<{type(value).__name__}>"


def printable_number(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if -_MAX_INTEGER <= value < _MAX_INTEGER else None
    return value if math.isfinite(value) else None
