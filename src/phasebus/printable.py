"""Any value as text or a number that JSON, a terminal, a metric and a span can carry.

Every `StepEvent` is made of such values: this is the gate for what enters one, so that no output has to expect others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from numbers import Integral, Rational, Real
from pathlib import PurePath
from typing import Final

MAX_CHARACTERS: Final = 65_536
"""Longer text is cut."""

MAX_ATTRIBUTES: Final = 128
"""Further attributes of a step are left out; the limit of OpenTelemetry's spans."""

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
        return _plain(value)
    except Exception:  # noqa: BLE001  # deep nesting, or a __repr__ that raises
        return f"<{type(value).__name__}>"


def _plain(value: object) -> str | int | float | bool:
    """Return a number or a path of another class as what it stands for, anything else as its `repr`."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Integral):
        return printable_value(int(value))
    if isinstance(value, Real) and not isinstance(value, Rational):
        return printable_value(float(value))
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    return repr(value)


def printable_number(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if -_MAX_INTEGER <= value < _MAX_INTEGER else None
    return value if math.isfinite(value) else None


def printable_amount(value: object) -> float | None:
    """Return a number of at least 0 that fits into 64 bits, also of a number's class of another library; else None."""
    if type(value) is not int and type(value) is not float:
        try:
            value = float(value)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001  # not a number, or one that is too large
            return None
    return value if 0 <= value < _MAX_INTEGER else None


def printable_label(text: object) -> str:
    """Return a name or a unit as printable text of at most MAX_CHARACTERS characters."""
    if type(text) is str and text.isprintable() and len(text) <= MAX_CHARACTERS:
        return text
    plain = printable_value(text)
    return printable_text(bounded_text(plain if isinstance(plain, str) else str(plain)))


def printable_attributes(attributes: Mapping[str, object]) -> Mapping[str, str | int | float | bool]:
    """Return attributes as every output can carry them, at most MAX_ATTRIBUTES; the same object if they all are."""
    if len(attributes) <= MAX_ATTRIBUTES and _are_printable(attributes):
        return attributes  # type: ignore[return-value]
    return {printable_label(key): _attribute(value) for key, value in islice(attributes.items(), MAX_ATTRIBUTES)}


def _attribute(value: object) -> str | int | float | bool:
    plain = printable_value(value)
    return printable_text(bounded_text(plain)) if isinstance(plain, str) else plain


def _are_printable(attributes: Mapping[str, object]) -> bool:
    """Return whether `printable_attributes` would change nothing. It is called for every event: a plain loop is fastest."""
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            if not value.isprintable() or len(value) > MAX_CHARACTERS:  # type: ignore[attr-defined, arg-type]
                return False
        elif kind is int or kind is float:
            if not -_MAX_INTEGER <= value < _MAX_INTEGER:  # type: ignore[operator]
                return False
        elif kind is not bool:
            return False
        if type(key) is not str or not key.isprintable() or len(key) > MAX_CHARACTERS:
            return False
    return True


def address_text(host: str, port: int | str) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
