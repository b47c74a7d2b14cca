"""The current state of one step, as the page, the terminal and `phasebus watch` receive it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class LiveStep:
    """The current state of a step.

    Attributes:
        id: Its id, and that of its span.
        parent: The id of the step it belongs to, or None.
        node: The node it runs on; "" for what belongs to no single one.
        kind: Its kind.
        name: Its name.
        start: Its start, in seconds since the epoch.
        end: Its end, likewise; None while it runs.
        outcome: ``"running"``, ``"finished"``, or how it failed.
        error: The error that ended it; None if none did.
        attributes: Its attributes.
        done: The amount that is done, in `unit`; None if it reports no progress.
        total: The whole amount; None if unknown.
        unit: The unit, in UCUM notation.
        rate: The amount done in a second, smoothed; None while unknown.
        usual: Its usual duration in earlier runs (``seconds``, and the range from ``low`` to ``high``); None if unknown.
    """

    id: str
    parent: str | None
    node: str
    kind: str
    name: str
    start: float
    end: float | None = None
    outcome: str = "running"
    error: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    done: float | None = None
    total: float | None = None
    unit: str = "1"
    rate: float | None = None
    usual: dict[str, float] | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON data, without unknown fields."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value is not None and value != {}}
