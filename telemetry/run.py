"""The identity of a start-up: the run, the node, and its place in a trace."""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from phasebus.bus import new_trace_id
from phasebus.printable import printable_text

_TRACEPARENT: Final = re.compile(
    "(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)


def host_name() -> str:
    """Return the name of this machine, with an escape for each byte that is no UTF-8."""
    return printable_text(platform.node())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """The ids that every event, span, metric and page of one start-up carries.

    Attributes:
        run: The run's id: when it began (UTC) and a random part, so that ids sort by time.
        trace: The trace id: 32 hexadecimal digits.
        node: The name of the node.
        parent: The span outside the process that caused the start-up, 16 hexadecimal digits; None if there is none.
        parent_sampled: Whether that span is sampled, by the flags of its TRACEPARENT; None if there is none.
        member: Whether it is one of several processes of its run, started by another one.
    """

    run: str
    trace: str
    node: str
    parent: str | None = None
    parent_sampled: bool | None = None
    member: bool = False

    @classmethod
    def fresh(cls, node: str | None = None, environment: Mapping[str, str] = os.environ) -> RunIdentity:
        """Return a new identity, in the trace that a TRACEPARENT of `environment` names, if there is a valid one."""
        seconds, rest = divmod(time.time_ns(), 10**9)
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        caller = parse_traceparent(environment.get("TRACEPARENT", ""))
        return cls(
            run=f"{began}-{rest * 16**4 // 10**9:04x}{secrets.token_hex(4)}",  # sorted by its begin within a second, too
            trace=caller.trace if caller else new_trace_id(),
            node=printable_text(node or "") or host_name() or "node",
            parent=caller.span if caller else None,
            parent_sampled=caller.sampled if caller else None,
        )

    def of_member(self, node: str, step: str) -> RunIdentity:
        """Return the identity of another process of this run, called `node`, that the step with the id `step` starts."""
        return replace(self, node=node, parent=step, member=True)

    def traceparent(self, step: str) -> str:
        """Return the W3C traceparent under which work caused by `step` continues this trace.

        It says 'sampled' in any case: what the engine's processes record is complete, and is sampled when it is forwarded.
        """
        return f"00-{self.trace}-{step}-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The span in another program that caused something here.

    Attributes:
        trace: Its trace id, 32 hexadecimal digits.
        span: Its id, 16 hexadecimal digits.
        sampled: Whether it is sampled.
    """

    trace: str
    span: str
    sampled: bool


def parse_traceparent(header: str) -> Caller | None:
    """Return the span that a W3C traceparent names; None if the header is not valid.

    OpenTelemetry has such a function, too, but its import reads variables and takes a while, and every command needs this one.

    Source: W3C Trace Context, "Traceparent Header" and "Versioning of traceparent".
    """
    matched = _TRACEPARENT.fullmatch(header.strip())
    if matched is None or matched["version"] == "ff" or (matched["version"] == "00" and matched["more"]):
        return None
    if not int(matched["trace"], 16) or not int(matched["span"], 16):
        return None
    return Caller(trace=matched["trace"], span=matched["span"], sampled=bool(int(matched["flags"], 16) & 1))
