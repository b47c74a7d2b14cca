"""The configuration of a run: the factors that its durations depend on, and their fingerprint.

The outermost step of a start has both as attributes, so the journal, the spans and the page have them without a format of
their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

from phasebus.telemetry.redaction import redact_value

FINGERPRINT: Final = "configuration"
"""The attribute with the fingerprint."""

BUSYNESS: Final = "machine_busyness"
"""The attribute with how busy the machine was when the start began (`busyness`): no factor, but durations depend on it."""

_PREFIX: Final = "configuration."
_FINGERPRINT_CHARACTERS: Final = 12
_MAX_FACTORS: Final = 40
_MAX_CHARACTERS: Final = 200
_MORE: Final = "more"
"""The factor that stands for those beyond `_MAX_FACTORS`."""

Factor = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The factors of a run by their names, such as ``model``, ``args.max_model_len`` or ``machine.cpus``.

    Attributes:
        factors: Their values, without secrets.
    """

    factors: Mapping[str, Factor] = field(default_factory=dict)

    @classmethod
    def of(cls, factors: Mapping[str, Any]) -> Self:
        """Return the configuration with these factors: redacted, bounded in number and length, without empty ones."""
        plain = {
            name: _bounded(redact_value(name, value))
            for name, value in sorted(factors.items())
            if value not in (None, "")
        }
        names = list(plain)
        if len(names) > _MAX_FACTORS:
            rest = {name: plain[name] for name in names[_MAX_FACTORS - 1 :]}
            plain = {name: plain[name] for name in names[: _MAX_FACTORS - 1]}
            plain[_MORE] = _digest(rest)
        return cls(factors=plain)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self | None:
        """Return the configuration that the attributes of a step have; None if they have none."""
        factors = {name.removeprefix(_PREFIX): value for name, value in attributes.items() if name.startswith(_PREFIX)}
        return cls(factors=factors) if FINGERPRINT in attributes else None

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that are equal for equal factors."""
        return _digest(self.factors)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of a step that describe it."""
        return {FINGERPRINT: self.fingerprint, **{_PREFIX + name: value for name, value in self.factors.items()}}

    def difference(self, other: Configuration) -> dict[str, tuple[Factor | None, Factor | None]]:
        """Return the factors whose values differ: those of this configuration and of `other`; None where it has none."""
        names = sorted({*self.factors, *other.factors})
        pairs = {name: (self.factors.get(name), other.factors.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def busyness_of(attributes: Mapping[str, Any]) -> float:
    """Return how busy the machine was when the start with these attributes began; 1 if that is not recorded."""
    recorded = attributes.get(BUSYNESS)
    return max(1.0, float(recorded)) if isinstance(recorded, int | float) else 1.0


def _bounded(value: Any) -> Factor:
    """Return a value as a factor; a long text ends with the hash of the whole."""
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= _MAX_CHARACTERS:
        return text
    return f"{text[: _MAX_CHARACTERS - _FINGERPRINT_CHARACTERS - 1]}…{_digest(text)}"


def _digest(data: Any) -> str:
    encoded = json.dumps(data, sort_keys=True, default=str).encode("utf-8", "backslashreplace")
    return hashlib.sha256(encoded).hexdigest()[:_FINGERPRINT_CHARACTERS]
