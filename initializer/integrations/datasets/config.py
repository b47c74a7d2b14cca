"""The configuration of a dataset's processing."""

from __future__ import annotations

from pydantic import Field

from phasebus.initializer.integrations.datasets.events import Bytes, Limits
from phasebus.initializer.pipeline.callbacks import Callbacks
from phasebus.initializer.pipeline.settings import Section


class DatasetConfig(Section):
    """A pipeline whose executions have phases."""

    callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers, in the order they run: callables, or "module:name" to import one."""

    name: str = "dataset"
    """The name of the pipeline in spans, metrics and messages."""

    max_block_bytes: Bytes | None = None
    """The size at which Ray Data closes a block, in bytes; by default Ray's own."""

    resource_limits: Limits = Field(default_factory=dict)
    """Maximum resources of an execution: cpu, gpu, memory and object_store_memory; unlimited by default."""

    progress_seconds: float = Field(default=0.5, gt=0)
    """The interval between two reports of the operators' progress, in seconds."""
