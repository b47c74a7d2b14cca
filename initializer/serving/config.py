"""The configuration of a served application: who may change its requests, and who watches them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from phasebus.initializer.config import import_callback


class ServingConfig(BaseModel):
    """An application whose requests have phases."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    callbacks: list[Any] = Field(default_factory=list)
    """Callbacks and observers, in the order they run: callables, or "module:name" for one that is imported."""

    name: str = "serving"
    """The name of the application in spans, metrics and messages."""

    told_per_second: float = Field(default=10.0, ge=0)
    """How many requests a second are told to the observers one by one, as steps with a span each. The others are
    counted together, a few times a second: telling of a request takes longer than a quick one takes."""

    @field_validator("callbacks")
    @classmethod
    def _import_callbacks(cls, callbacks: list[Any]) -> list[Any]:
        return [import_callback(each) if isinstance(each, str) else each for each in callbacks]
