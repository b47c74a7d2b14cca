"""Durations and amounts as people say them."""

from __future__ import annotations

_PREFIXES = ("", "k", "M", "G", "T", "P")


def format_duration(seconds: float) -> str:
    """Return a duration as people say it, to two or three digits: ``85 ms``, ``1.64 s``, ``3 min 5 s``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.0095 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_quantity(amount: float, unit: str) -> str:
    """Return an amount in a UCUM unit as people say it: ``1.23 GB`` for bytes, the bare number for things counted."""
    if unit != "By":
        return f"{amount:g}" if unit == "1" else f"{amount:g} {unit}"
    prefix = 0
    while abs(amount) >= 999.5 and prefix < len(_PREFIXES) - 1:
        amount /= 1000
        prefix += 1
    return f"{amount:.3g} {_PREFIXES[prefix]}B"
