"""Reporting requests to observers: some as steps, the others as counts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import anyio
from starlette.routing import Mount
from starlette.types import Scope

from phasebus.bus import (
    AttributeValue,
    Bus,
    BusStateError,
    Step,
    StepFailed,
    StepFinished,
    StepOutcome,
    StepsCounted,
    StepStarted,
    new_trace_id,
    outcome_of,
)
from phasebus.clock import now_ns
from phasebus.initializer.integrations.serving.events import REQUEST_STEP
from phasebus.initializer.integrations.serving.request import Request
from phasebus.telemetry.run import parse_traceparent

logger = logging.getLogger("phasebus.serving")

_FLUSH_SECONDS = 0.25

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""The methods of RFC 9110 and 5789. Clients may send any word, so others are not used as label values."""

_UNMATCHED = "unmatched"
"""The label for a request that matched no route; its path is not used, because the number of paths is unbounded."""

Group = tuple[str, str, int, StepOutcome | None]
"""The key of requests that are counted together: method, route, status and outcome."""


class RateLimit:
    """A limit per second, with bursts of one second's amount (the generic cell rate algorithm).

    Args:
        per_second: The limit.
    """

    def __init__(self, per_second: float) -> None:
        self._apart = 1 / per_second if per_second else math.inf
        self._ahead = max(1.0 - self._apart, 0.0) + 1e-9  # tolerance for rounding
        self._due = -math.inf if per_second else math.inf

    def acquire(self, now: float) -> bool:
        """Return whether the limit allows one more at `now`, in seconds on any clock, and count it."""
        if self._due - now > self._ahead:
            return False
        self._due = max(self._due, now) + self._apart
        return True


class RequestReporter:
    """Reports requests to the observers on a bus.

    Args:
        bus: The bus with the observers.
        name: The name of the application.
        per_second: Maximum number of requests a second that are reported as steps.

    Attributes:
        acquire_trace: Returns whether the request that begins now, in seconds of `time.perf_counter`, is reported as a step.
    """

    def __init__(self, bus: Bus, name: str, per_second: float) -> None:
        self._bus = bus
        self._name = name
        self._counted: dict[Group, list[float]] = {}
        self._acquire_failure = RateLimit(per_second).acquire
        self.acquire_trace = RateLimit(per_second).acquire

    @asynccontextmanager
    async def step(self, request: Request) -> AsyncIterator[Step]:
        """Report one request as a step, in the trace of its sender or else in a new one.

        The request's ``traceparent`` names the step, for the calls of the application (W3C Trace Context).
        """
        trace, caller = _trace_of(request)
        attributes = {"method": _method(request), **trace, "application": self._name}
        flags = "00" if trace.get("trace_sampled") is False else "01"
        failure = None
        with self._unless_closed():
            async with self._bus.step(REQUEST_STEP, self._name, parent=caller, attributes=attributes) as step:
                request.headers["traceparent"] = f"00-{trace['trace_id']}-{step.id}-{flags}"
                try:
                    yield step
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    step.attributes["route"] = _route(request)
        if failure is not None:
            raise failure

    async def count(self, request: Request, status: int, seconds: float, error: BaseException | None) -> None:
        """Count a request that has not been reported as a step.

        A failed request is reported as a step, with its error, up to the same number per second.
        """
        method, route = _method(request), _route(request)
        if isinstance(error, Exception) and self._acquire_failure(time.perf_counter()):
            await self._report_failure(request, {"method": method, "route": route, "status": status}, seconds, error)
            return
        group = (method, route, status, None if error is None else outcome_of(error))
        self._counted.setdefault(group, []).append(seconds)

    async def _report_failure(
        self, request: Request, attributes: Mapping[str, AttributeValue], seconds: float, error: Exception
    ) -> None:
        """Report a failed request as a step, after its end."""
        trace, caller = _trace_of(request)
        step = Step(self._bus, REQUEST_STEP, self._name, caller)
        step.attributes.update(attributes, **trace, application=self._name)
        ago = int(seconds * 1e9)
        began = {"time_ns": now_ns() - ago, "monotonic_ns": time.monotonic_ns() - ago}
        with self._unless_closed():
            await self._bus.publish(step.event(StepStarted, **began))
            await self._bus.publish(step.event(StepFailed, seconds=seconds, outcome=outcome_of(error), error=error))

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """Ignore the error of a closed bus: a request may end after the lifespan."""
        try:
            yield
        except BusStateError:
            if not self._bus.closed:
                raise

    async def flush(self) -> None:
        """Publish the counts. An error in a callback is logged, because no request is running that it could fail."""
        while self._counted:
            (method, route, status, outcome), seconds = self._counted.popitem()
            counted = StepsCounted(
                kind=REQUEST_STEP.name,
                name=self._name,
                attributes={"method": method, "route": route, "status": status, "application": self._name},
                outcome=outcome or "finished",
                seconds=tuple(seconds),
            )
            try:
                await self._bus.publish(counted)
            except Exception:
                logger.exception("a callback of %r failed on requests that were counted together", self._name)

    async def flush_forever(self) -> None:
        """Publish the counts a few times a second, until cancelled."""
        while True:
            await anyio.sleep(_FLUSH_SECONDS)
            await self.flush()


def wants_requests(bus: Bus) -> bool:
    """Return whether a subscriber on `bus` accepts events of requests."""
    return any(bus.wants(each) for each in (StepStarted, StepFinished, StepFailed, StepsCounted))


def _trace_of(request: Request) -> tuple[dict[str, AttributeValue], str | None]:
    """Return the trace attributes of a request and the id of the caller's span; without a caller, a new trace and None."""
    caller = parse_traceparent(request.headers.get("traceparent", ""))
    if caller is None:
        return {"trace_id": new_trace_id()}, None
    return {"trace_id": caller.trace, "trace_sampled": caller.sampled}, caller.span


def _method(request: Request) -> str:
    method: str = request.scope["method"]
    return method if method in _METHODS else "other"


def _route(request: Request) -> str:
    """Return the path of the route that matched, with the paths of the mounts above it."""
    scope = request.scope
    route = scope.get("route")
    path: str | None = getattr(route, "path", None)
    if path is None:  # before Starlette 1.7
        path = getattr(scope.get("endpoint"), "__name__", None)
    if "app_root_path" in scope:
        mounts = _mounts(scope)
        path = mounts if path is None or isinstance(route, Mount) else f"{mounts}{path}"
    return path or _UNMATCHED


def _mounts(scope: Scope) -> str:
    """Return the declared paths of the mounts that a request matched. Their actual values are unbounded in number."""
    left: str = scope["root_path"].removeprefix(scope["app_root_path"])
    routes = getattr(scope.get("router"), "routes", ())
    declared = ""
    while left:
        for mount in routes:
            if isinstance(mount, Mount) and (match := mount.path_regex.match(f"{left}/")):
                break
        else:
            return f"{declared}/*"  # mounted by something else
        declared, routes = declared + mount.path, mount.routes
        left = f"/{match['path']}".rstrip("/")
    return declared
