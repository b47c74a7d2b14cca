"""The phases of a dataset's processing, the entries of its context, and the kinds of step it is made of."""

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
    """Published when an execution is planned and before any of it runs; raise to prevent it.

    Attributes:
        operators: What it is made of, in the order the data takes; `OPERATORS` in the context is that of the latest.
    """

    phase: ClassVar[str] = "pre_execution"
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostExecution(PhaseEvent):
    """Published when an execution has succeeded.

    Attributes:
        stats: What Ray Data says of it; `STATS` in the context is that of the latest.
    """

    phase: ClassVar[str] = "post_execution"
    stats: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostDataset(PhaseEvent):
    """Published when the pipeline has returned: see, or replace, `RESULT`."""

    phase: ClassVar[str] = "post_dataset"


Bytes = Annotated[int, Field(gt=0)]
Limits = dict[Literal["cpu", "gpu", "memory", "object_store_memory"], Annotated[float, Field(ge=0)]]
"""How much of Ray's resources: CPUs and GPUs, memory and the object store's in bytes."""

MAX_BLOCK_BYTES: Final = Key[int | None](
    "max_block_bytes",
    validate=TypeAdapter(Bytes | None).validate_python,
    doc="The size at which Ray Data closes a block, in bytes; None leaves that to Ray.",
)
RESOURCE_LIMITS: Final = Key[Limits](
    "resource_limits",
    validate=TypeAdapter(Limits).validate_python,
    doc="What an execution may use at most, of cpu, gpu, memory and object_store_memory.",
)
OPERATORS: Final = Key[list[str]](
    "operators", doc="The operators of the latest execution, in the order the data takes."
)
STATS: Final = Key[str]("stats", doc="What Ray Data says of the latest execution that has ended.")
RESULT: Final = Key[Any]("result", doc="What the pipeline returned.")

DATASET_KEYS: Final[tuple[Key[Any], ...]] = (MAX_BLOCK_BYTES, RESOURCE_LIMITS, OPERATORS, STATS, RESULT)

DATASET: Final = StepKind("dataset")
EXECUTION: Final = StepKind("dataset_execution")
OPERATOR: Final = StepKind("dataset_operator")
