"""Steps that are published after they have begun: Ray's part of a start is known only once it is over."""

from __future__ import annotations

import time
from collections.abc import Mapping

from phasebus.bus import AttributeValue, Bus, StepFailed, StepFinished, StepStarted, new_step_id, outcome_of


class PastStep:
    """A step with a beginning in the past.

    Args:
        bus: Where it is published.
        kind: Its kind.
        name: Which one of its kind.
        began_ns: When it began, in nanoseconds since the epoch.
        parent: The id of the step it belongs to.
        attributes: What is known of it.
        step: Its id; a new one by default.
    """

    def __init__(
        self,
        bus: Bus,
        kind: str,
        name: str,
        began_ns: int,
        *,
        parent: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        step: str | None = None,
    ) -> None:
        self.id = step or new_step_id()
        self._bus = bus
        self._began_ns = began_ns
        self._about = {"step": self.id, "parent": parent, "kind": kind, "name": name, "attributes": attributes or {}}

    async def begin(self) -> None:
        """Publish that it began."""
        began = {"time_ns": self._began_ns, "monotonic_ns": _monotonic(self._began_ns)}
        await self._bus.publish(StepStarted(**self._about, **began))  # type: ignore[arg-type]

    async def end(self, ended_ns: int | None = None, error: BaseException | None = None) -> None:
        """Publish that it ended, with `error` if it failed.

        Args:
            ended_ns: When it ended, in nanoseconds since the epoch; now by default.
            error: Its failure; None if it did not fail.
        """
        ended_ns = max(self._began_ns, time.time_ns() if ended_ns is None else ended_ns)
        ended = {
            **self._about,
            "time_ns": ended_ns,
            "monotonic_ns": _monotonic(ended_ns),
            "seconds": (ended_ns - self._began_ns) / 1e9,
        }
        if error is None:
            await self._bus.publish(StepFinished(**ended))  # type: ignore[arg-type]
        else:
            await self._bus.publish(StepFailed(**ended, outcome=outcome_of(error), error=error))  # type: ignore[arg-type]


async def publish_past(bus: Bus, kind: str, name: str, began_ns: int, ended_ns: int, parent: str) -> None:
    """Publish a step that is over."""
    if ended_ns > began_ns:
        step = PastStep(bus, kind, name, began_ns, parent=parent)
        await step.begin()
        await step.end(ended_ns)


def _monotonic(time_ns: int) -> int:
    return max(0, time_ns + time.monotonic_ns() - time.time_ns())
