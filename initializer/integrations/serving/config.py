"""The configuration of a served application: its callbacks and observers."""

from __future__ import annotations

from pydantic import Field

from phasebus.initializer.pipeline.callbacks import Callbacks
from phasebus.initializer.pipeline.settings import Section


class ServingConfig(Section):
    """An application whose requests have phases."""

    callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers, in the order they run: callables, or "module:name" to import one."""

    name: str = "serving"
    """The name of the application in spans, metrics and messages."""

    traced_requests_per_second: float = Field(default=10.0, ge=0)
    """Maximum number of requests per second that are reported as steps, with a span each. Further requests are counted in
    groups, a few times per second, because reporting a request can take longer than serving it."""
