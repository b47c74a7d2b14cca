"""Notices of an engine's steps: sent by its processes when a step begins and when it ends, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter

Value = StrictStr | StrictInt | StrictFloat | StrictBool


class StepNotice(BaseModel):
    """What a process of the engine says of one of its steps."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event: Literal["started", "ended", "exited", "ready"]
    """What has happened: to the step; to the process that the step is the start of, which has ended with the attribute
    ``exit_code``; or the engine as a whole is ready."""

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


class IterationsNotice(BaseModel):
    """What an engine has done so far while it served: counts since it began."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event: Literal["iterations"]
    """What is told."""

    engine: int
    """Which of the engines behind one front end."""

    served: bool
    """Whether this vLLM serves a /metrics of its own."""

    seconds: tuple[int, ...]
    """How many iterations fell into each bucket of `names.ITERATION_SECONDS`, and above."""

    seconds_sum: float
    """How long they all took, in seconds."""

    requests: tuple[int, ...]
    """How many iterations fell into each bucket of `names.ITERATION_REQUESTS`, and above."""

    requests_sum: float
    """How many requests they all worked on."""

    prompt_tokens: int
    """How many prompt tokens were computed."""

    generation_tokens: int
    """How many tokens were generated."""

    running: int
    """How many requests are worked on now."""

    waiting: int
    """How many requests wait now."""

    cache: float
    """The share of the KV cache in use now, 0 to 1."""

    @property
    def name(self) -> str:
        """What is said of it in messages."""
        return f"iterations of engine {self.engine}"


_NOTICE: TypeAdapter[StepNotice | IterationsNotice] = TypeAdapter(
    Annotated[StepNotice | IterationsNotice, Field(discriminator="event")]
)


def read_notices(body: bytes) -> Iterator[StepNotice | IterationsNotice]:
    """Yield the notices in `body`.

    Raises:
        ValueError: A line is none.
    """
    for line in body.splitlines():
        yield _NOTICE.validate_json(line)
