"""Notices of an engine's steps: sent by its processes when a step begins and when it ends, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

Value = StrictStr | StrictInt | StrictFloat | StrictBool


class StepNotice(BaseModel):
    """What a process of the engine says of one of its steps."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event: Literal["started", "ended", "ready"]
    """What has happened: to the step; or the engine as a whole is ready."""

    step: str = Field(pattern="^[0-9a-f]{16}$")
    """The step's id, and that of its span."""

    parent: str | None = None
    """The id of what it belongs to."""

    name: str
    """What it is called there."""

    time_ns: int
    """When it happened, in nanoseconds since the epoch."""

    began_ns: int | None = None
    """When the step began, where it has ended."""

    pid: int
    """The id of the process."""

    process: str
    """What the process is called."""

    attributes: Mapping[str, Value] = {}
    """What else is known."""

    traced: bool = False
    """Whether that process exports the span by itself."""

    error: str | None = None
    """What it failed with."""


def read_notices(body: bytes) -> Iterator[StepNotice]:
    """Yield the notices in `body`.

    Raises:
        ValueError: A line is none.
    """
    for line in body.splitlines():
        yield StepNotice.model_validate_json(line)
