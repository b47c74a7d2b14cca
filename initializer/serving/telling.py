"""What observers are told of the requests: some one by one, as steps; the others counted together."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from phasebus.bus import (
    AttributeValue,
    Bus,
    Step,
    StepFailed,
    StepFinished,
    StepOutcome,
    StepProgress,
    StepsCounted,
    StepStarted,
    new_trace_id,
    outcome_of,
)
from phasebus.initializer.serving.events import REQUEST_STEP
from phasebus.initializer.serving.request import Request
from phasebus.telemetry.run import parse_traceparent

logger = logging.getLogger("phasebus.serving")

_FLUSH_SECONDS = 0.25

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Those of RFC 9110 and 5789; clients may send any word, and a label must not take them all."""

_UNMATCHED = "unmatched"
"""The route of a request that no route of the application matched: paths themselves are without number."""

Group = tuple[str, str, int, StepOutcome | None]
"""What requests are counted together by: method, route, status and outcome."""


class Allowance:
    """So many a second, and no more; what one second brings may come at once (the generic cell rate algorithm).

    Args:
        per_second: How many.
    """

    def __init__(self, per_second: float) -> None:
        self._apart = 1 / per_second if per_second else math.inf
        self._ahead = max(1.0 - self._apart, 0.0) + 1e-9  # or rounding costs one
        self._due = -math.inf if per_second else math.inf

    def take(self, now: float) -> bool:
        """Return whether there is one left at `now`, in seconds on any clock, and take it."""
        if self._due - now > self._ahead:
            return False
        self._due = max(self._due, now) + self._apart
        return True


class Telling:
    """Tells the observers on `bus` of requests.

    Args:
        bus: Where the observers are.
        name: The name of the application.
        per_second: How many requests a second are told one by one.

    Attributes:
        alone: Returns whether the request that begins now, in seconds of `time.perf_counter`, is told as a step of its own.
        wanted: Whether anybody wants to be told anything.
    """

    def __init__(self, bus: Bus, name: str, per_second: float) -> None:
        self._bus = bus
        self._name = name
        self._counted: dict[Group, list[float]] = {}
        self.alone = Allowance(per_second).take
        self.wanted = any(
            bus.wants(each) for each in (StepStarted, StepProgress, StepFinished, StepFailed, StepsCounted)
        )

    @asynccontextmanager
    async def step(self, request: Request) -> AsyncIterator[Step]:
        """Tell of one request as a step, in the trace of whoever sent it or else in one of its own.

        What the application calls finds the step in the request's ``traceparent`` (W3C Trace Context).
        """
        trace, caller = parse_traceparent(request.headers.get("traceparent", ""))
        trace = trace or new_trace_id()
        attributes: dict[str, AttributeValue] = {"method": _method(request), "trace_id": trace}
        async with self._bus.step(REQUEST_STEP, self._name, parent=caller, attributes=attributes) as step:
            request.headers["traceparent"] = f"00-{trace}-{step.id}-01"
            try:
                yield step
            finally:
                step.attributes["route"] = _route(request)

    def count(self, request: Request, status: int, seconds: float, error: BaseException | None) -> None:
        """Count a request that is not told as a step."""
        group = (_method(request), _route(request), status, None if error is None else outcome_of(error))
        self._counted.setdefault(group, []).append(seconds)

    async def flush(self) -> None:
        """Tell what has been counted. What a callback raises is logged: no request is left for it to fail."""
        while self._counted:
            (method, route, status, outcome), seconds = self._counted.popitem()
            counted = StepsCounted(
                kind=REQUEST_STEP.name,
                name=self._name,
                attributes={"method": method, "route": route, "status": status},
                outcome=outcome or "finished",
                seconds=tuple(seconds),
            )
            try:
                await self._bus.publish(counted)
            except Exception:
                logger.exception("a callback of %r failed when it was told of requests counted together", self._name)

    async def flush_forever(self) -> None:
        """Tell what has been counted a few times a second, until cancelled."""
        while True:
            await anyio.sleep(_FLUSH_SECONDS)
            await self.flush()


def _method(request: Request) -> str:
    method: str = request.scope["method"]
    return method if method in _METHODS else "other"


def _route(request: Request) -> str:
    route = request.scope.get("route")
    return str(getattr(route, "path", _UNMATCHED))
