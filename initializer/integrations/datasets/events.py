"""The phases, context keys and step kinds of a dataset's processing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, TypeAdapter

from phasebus.bus import Key, PhaseEvent, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreDataset(PhaseEvent):
    """Published before the pipeline is built: change `MAX_BLOCK_BYTES` and `RESOURCE_LIMITS`."""

    phase: ClassVar[str] = "pre_dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreExecution(PhaseEvent):
    """Published when an execution has been planned and has not begun; raise an error to prevent it.

    Attributes:
        operators: The names of its operators, from input to output; `OPERATORS` has those of the latest execution.
    """

    phase: ClassVar[str] = "pre_execution"
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostExecution(PhaseEvent):
    """Published when an execution has succeeded.

    Attributes:
        stats: Ray Data's statistics of it; `STATS` has those of the latest execution.
    """

    phase: ClassVar[str] = "post_execution"
    stats: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostDataset(PhaseEvent):
    """Published when the pipeline has returned: read or replace `RESULT`."""

    phase: ClassVar[str] = "post_dataset"


Bytes = Annotated[int, Field(gt=0)]
Limits = dict[Literal["cpu", "gpu", "memory", "object_store_memory"], Annotated[float, Field(ge=0)]]
"""Amounts of Ray's resources: numbers of CPUs and GPUs; memory and object store memory in bytes."""

MAX_BLOCK_BYTES: Final = Key[int | None](
    "max_block_bytes",
    validate=TypeAdapter(Bytes | None).validate_python,
    doc="The size at which Ray Data closes a block, in bytes; None leaves that to Ray.",
)
RESOURCE_LIMITS: Final = Key[Limits](
    "resource_limits",
    validate=TypeAdapter(Limits).validate_python,
    doc="Maximum resources of an execution: cpu, gpu, memory and object_store_memory.",
)
OPERATORS: Final = Key[list[str]](
    "operators", doc="The names of the latest execution's operators, from input to output."
)
STATS: Final = Key[str]("stats", doc="Ray Data's statistics of the latest execution that has succeeded.")
RESULT: Final = Key[Any]("result", doc="The value that the pipeline returned.")

DATASET_KEYS: Final[tuple[Key[Any], ...]] = (MAX_BLOCK_BYTES, RESOURCE_LIMITS, OPERATORS, STATS, RESULT)

DATASET: Final = StepKind("dataset")
EXECUTION: Final = StepKind("dataset_execution")
OPERATOR: Final = StepKind("dataset_operator")
