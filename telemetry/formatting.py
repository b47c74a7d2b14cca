"""Durations, quantities, progress and titles as text: on the terminal, in logs and reports, and on the page.

The page formats what changes while it is open by the same rules, in ``service/page/words.js``: a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

PREFIXES: Final = ("", "k", "M", "G", "T", "P")
TITLE_IS_NAME: Final = ("phase", "engine_step")
"""The kinds of step whose title is the name alone."""

NAME_IS_WORDS: Final = ("ray",)
"""The other kinds whose names are words, and not those of a model, a file, a host or a function."""


NOTABLE_SECONDS: Final = 0.1
"""A step that took less, changed nothing and did not fail is not worth a line."""


def format_duration(seconds: float) -> str:
    """Return a duration with two or three digits: ``85 ms``, ``1.64 s``, ``3 min 5 s``."""
    if not math.isfinite(seconds):
        return "unknown"
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.0095 else f"{_rounded(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(_rounded(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_usual(usual: Mapping[str, float]) -> str:
    """Return a usual duration with its range: ``34 s (28.9 s to 40.8 s)``."""
    seconds, low, high = (format_duration(usual[name]) for name in ("seconds", "low", "high"))
    return f"{seconds} ({low} to {high})"


def format_quantity(amount: float, unit: str) -> str:
    """Return an amount in a UCUM unit: ``1.23 GB`` for bytes, a bare number for the unit ``1``."""
    if not math.isfinite(amount):
        return "unknown"
    if unit != "By":
        number = str(int(amount)) if amount == int(amount) and abs(amount) < 1e15 else f"{amount:g}"
        return number if unit == "1" else f"{number} {unit}"
    prefix = 0
    while abs(amount) >= 999.5 and prefix < len(PREFIXES) - 1:
        amount /= 1000
        prefix += 1
    return f"{float(f'{amount:.3g}'):g} {PREFIXES[prefix]}B"


def format_progress(done: float, total: float | None, unit: str, rate: float | None = None) -> str:
    """Return how far a step is: ``3 GB of 10 GB (30 %), 500 MB/s, 14 s left``.

    Args:
        done: The amount that is done, in `unit`.
        total: The whole amount; None if unknown.
        unit: A unit in UCUM notation.
        rate: The amount done in a second; None if unknown.
    """
    parts = [format_quantity(done, unit)]
    total = total if total and math.isfinite(total) and math.isfinite(done) else None
    if total:
        parts[0] += f" of {format_quantity(total, unit)} ({math.floor(100 * min(1.0, max(0.0, done / total)))} %)"
    if rate and 0 < rate < math.inf:
        parts.append(f"{format_quantity(rate, unit)}/s")
        if total:
            parts.append(f"{format_duration(max(1, _rounded((total - done) / rate)))} left")
    return ", ".join(parts)


def format_title(kind: str, name: str) -> str:
    """Return the title of a step: ``engine init`` for a phase, ``callback add_flag`` for a callback."""
    if kind in TITLE_IS_NAME:
        return name.replace("_", " ")
    words = kind.replace("_", " ")
    return words if name == kind else f"{words} {name.replace('_', ' ') if kind in NAME_IS_WORDS else name}"


def format_step(step: Mapping[str, Any], node: str = "") -> str:
    """Return a step as one name: ``load weights · Worker_TP3 on node-17``, ``callback add_flag in pre download``.

    Of an import, the module is part of the name.

    Args:
        step: A step with ``kind``, ``name`` and perhaps ``attributes``.
        node: The node it runs on, if that is to be named.
    """
    attributes = step.get("attributes") or {}
    text = format_title(step["kind"], step["name"])
    if step["kind"] == "callback" and attributes.get("phase"):
        text += f" in {str(attributes['phase']).replace('_', ' ')}"
    if attributes.get("module"):
        text += f" {attributes['module']}"
    if attributes.get("process"):
        text += f" · {attributes['process']}"
    return f"{text} on {node}" if node and step["kind"] != "node" else text


def _rounded(number: float) -> int:
    return math.floor(number + 0.5) if math.isfinite(number) else 0
