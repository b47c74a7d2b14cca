"""What observers are told of the requests: some one by one, as steps; the others counted together.

Both are told a few times a second. An observer that is woken by itself for one request costs more than the request does;
what it is told has happened when its events say so.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from phasebus.bus import (
    Bus,
    Event,
    Step,
    StepFailed,
    StepFinished,
    StepOutcome,
    StepsCounted,
    StepStarted,
    current_step,
    new_trace_id,
    outcome_of,
)
from phasebus.initializer.serving.events import REQUEST_STEP
from phasebus.initializer.serving.request import Request
from phasebus.telemetry.run import parse_traceparent

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
        self._ahead = max(1.0 - self._apart, 0.0)
        self._due = 0.0 if per_second else math.inf

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
    """

    def __init__(self, bus: Bus, name: str, per_second: float) -> None:
        self._bus = bus
        self._name = name
        self._held: deque[Event] = deque()
        self._counted: dict[Group, list[float]] = {}
        self.alone = Allowance(per_second).take

    @contextmanager
    def step(self, request: Request) -> Iterator[Step]:
        """Tell of one request as a step, in the trace of whoever sent it or else in one of its own.

        What the application calls finds the step in the request's ``traceparent`` (W3C Trace Context).
        """
        trace, caller = parse_traceparent(request.headers.get("traceparent", ""))
        trace = trace or new_trace_id()
        if caller is None and (around := current_step()) is not None:
            caller = around.id
        step = Step(self._bus, REQUEST_STEP, self._name, caller)
        step.attributes |= {"method": _method(request), "trace_id": trace}
        self._held.append(step.event(StepStarted))
        request.headers["traceparent"] = f"00-{trace}-{step.id}-01"
        try:
            with step.running():
                yield step
        except BaseException as error:
            step.attributes["route"] = _route(request)
            outcome = outcome_of(error)
            self._held.append(step.event(StepFailed, seconds=step.seconds, outcome=outcome, error=error))
            raise
        step.attributes["route"] = _route(request)
        self._held.append(step.event(StepFinished, seconds=step.seconds))

    def count(self, request: Request, status: int, seconds: float, error: BaseException | None) -> None:
        """Count a request that is not told as a step."""
        group = (_method(request), _route(request), status, None if error is None else outcome_of(error))
        self._counted.setdefault(group, []).append(seconds)

    async def flush(self) -> None:
        """Tell what there is to tell."""
        while self._held:
            await self._bus.publish(self._held.popleft())
        counted, self._counted = self._counted, {}
        for (method, route, status, outcome), seconds in counted.items():
            await self._bus.publish(
                StepsCounted(
                    kind=REQUEST_STEP.name,
                    name=self._name,
                    attributes={"method": method, "route": route, "status": status},
                    outcome=outcome or "finished",
                    seconds=tuple(seconds),
                )
            )

    async def flush_forever(self) -> None:
        """Tell what there is to tell a few times a second, until cancelled."""
        while True:
            await anyio.sleep(_FLUSH_SECONDS)
            await self.flush()


def _method(request: Request) -> str:
    method: str = request.scope["method"]
    return method if method in _METHODS else "other"


def _route(request: Request) -> str:
    route = request.scope.get("route")
    return str(getattr(route, "path", _UNMATCHED))
