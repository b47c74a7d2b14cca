"""Notices: reports that an engine's processes send at once, one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

MOST_NANOSECONDS: Final = 2**62
"""The latest moment that is accepted, in nanoseconds since the epoch (the year 2116)."""

_INT64: Final = 2**63

StepId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
Label = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, StringConstraints(max_length=16_384)]
Nanoseconds = Annotated[int, Field(gt=0, lt=MOST_NANOSECONDS)]
Value = (
    Annotated[StrictStr, StringConstraints(max_length=16_384)]
    | Annotated[StrictInt, Field(ge=-_INT64, lt=_INT64)]
    | StrictFloat
    | StrictBool
)


class Notice(BaseModel):
    """The base of all notices, with the name of the reported event."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    event: str
    """The reported event, which determines the other fields."""


class StepNotice(Notice):
    """An event in the life of one step of a process."""

    event: Literal["started", "ended", "exited", "ready"]
    """The step has started or ended; its process has ended with the attribute ``exit_code``; the engine is ready."""

    step: StepId
    """The step's id, and that of its span."""

    parent: StepId | None = None
    """The id of the step that contains it."""

    name: Label
    """The name of the step."""

    time_ns: Nanoseconds
    """The time of the event, in nanoseconds since the epoch."""

    began_ns: Nanoseconds | None = None
    """The start of a step that has ended, in nanoseconds since the epoch."""

    pid: int = Field(gt=0, lt=2**31)
    """The id of the process."""

    process: Label
    """The name of the process."""

    attributes: Mapping[Label, Value] = Field(default={}, max_length=100)
    """The attributes of the step."""

    traced: bool = False
    """Whether that process exports the span by itself."""

    error: Text | None = None
    """The error of a failed step."""

    @model_validator(mode="after")
    def _has_an_exit_code(self) -> Self:
        if self.event == "exited" and type(self.attributes.get("exit_code")) is not int:
            raise ValueError("the attribute exit_code is no integer")
        return self


class NoticeReader:
    """Reads notices of the registered events: those of steps, and those that an engine adds."""

    def __init__(self) -> None:
        self._models: dict[str, type[Notice]] = dict.fromkeys(("started", "ended", "exited", "ready"), StepNotice)

    def register(self, event: str, model: type[Notice]) -> bool:
        """Accept notices of one more event; return whether it was not registered before."""
        is_new = event not in self._models
        self._models.setdefault(event, model)
        return is_new

    def read(self, body: bytes) -> tuple[Sequence[Notice], Sequence[str]]:
        """Return the notices in `body`, and an error for each line that is not one."""
        notices: list[Notice] = []
        faults: list[str] = []
        for line in body.splitlines():
            try:
                notices.append(self._notice(from_json(line, allow_inf_nan=False)))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                faults.append(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
            except (ValueError, RecursionError) as error:
                faults.append(str(error))
        return notices, faults

    def _notice(self, value: Any) -> Notice:
        event = value.get("event") if isinstance(value, dict) else None
        model = self._models.get(event) if isinstance(event, str) else None
        if model is None:
            raise ValueError("it reports no known event")
        return model.model_validate(value)
