"""The phases of a request, the keys of its context, and its kind of step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from starlette.types import ASGIApp

from phasebus.bus import Key, PhaseEvent, StepKind
from phasebus.initializer.integrations.serving.request import Request
from phasebus.initializer.integrations.serving.response import ResponseStart


@dataclass(frozen=True, slots=True, kw_only=True)
class PreRequest(PhaseEvent):
    """Published before a request reaches the application: change `REQUEST`, or set `ANSWER` to answer in its place."""

    phase: ClassVar[str] = "pre_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostRequest(PhaseEvent):
    """Published when the response begins, before any of it is sent: change `RESPONSE`, its body chunk by chunk."""

    phase: ClassVar[str] = "post_request"


REQUEST: Final = Key[Request]("request", doc="The request; changes to it reach the application.")
ANSWER: Final = Key[ASGIApp](
    "answer",
    doc="Set at pre_request: the application that answers in place of the configured one, such as a Starlette response.",
)
RESPONSE: Final = Key[ResponseStart](
    "response", doc="The status and headers of the response, and functions for its body."
)

REQUEST_STEP: Final = StepKind("request")
