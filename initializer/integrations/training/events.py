"""The phases, context keys and step kinds of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import TypeAdapter

from phasebus.bus import Key, PhaseEvent, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTraining(PhaseEvent):
    """Published before anything starts: change `LOOP_CONFIG`, `SCALING_CONFIG`, `RUN_CONFIG`, `TRAINER_OPTIONS`."""

    phase: ClassVar[str] = "pre_training"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreWorkerGroup(PhaseEvent):
    """Published before a group of workers starts; again before Ray restarts the workers after a failure."""

    phase: ClassVar[str] = "pre_worker_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostWorkerGroup(PhaseEvent):
    """Published when the workers of a group are ready, before they train."""

    phase: ClassVar[str] = "post_worker_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported(PhaseEvent):
    """Published when every worker has reported, before Ray stores the report: change `METRICS`, or set `STOP`."""

    phase: ClassVar[str] = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(PhaseEvent):
    """Published after `Reported` if the report has a checkpoint: `CHECKPOINT` is its path in the run's storage."""

    phase: ClassVar[str] = "checkpoint_saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersFailed(PhaseEvent):
    """Published when workers have failed: read `WORKER_ERRORS`. Ray's FailureConfig decides whether they are restarted."""

    phase: ClassVar[str] = "workers_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostTraining(PhaseEvent):
    """Published when the run has succeeded: read or replace `RESULT`. A run that fails ends with a failed step instead."""

    phase: ClassVar[str] = "post_training"


LOOP_CONFIG: Final = Key[dict[str, Any]](
    "loop_config",
    validate=TypeAdapter(dict[str, Any]).validate_python,
    doc="The argument of each worker's training function.",
)
SCALING_CONFIG: Final = Key[Any]("scaling_config", doc="Ray's ScalingConfig.")
RUN_CONFIG: Final = Key[Any]("run_config", doc="Ray's RunConfig.")
TRAINER_OPTIONS: Final = Key[dict[str, Any]](
    "trainer_options",
    validate=TypeAdapter(dict[str, Any]).validate_python,
    doc="Further arguments of the trainer: datasets, torch_config, …",
)
METRICS: Final = Key[dict[str, Any]](
    "metrics",
    validate=TypeAdapter(dict[str, Any]).validate_python,
    doc="The metrics that the worker of rank 0 reported; Ray stores them with the changes of callbacks.",
)
CHECKPOINT: Final = Key[str | None]("checkpoint", doc="The path of the reported checkpoint; None without one.")
WORKER_ERRORS: Final = Key[dict[int, str]]("worker_errors", doc="The errors of the workers, by rank.")
STOP: Final = Key[bool](
    "stop",
    validate=TypeAdapter(bool).validate_python,
    doc="True ends the run as finished at Ray's next poll of the workers: at once if it is set at reported.",
)
RESULT: Final = Key[Any]("result", doc="Ray's Result.")

TRAINING_KEYS: Final[tuple[Key[Any], ...]] = (
    LOOP_CONFIG,
    SCALING_CONFIG,
    RUN_CONFIG,
    TRAINER_OPTIONS,
    METRICS,
    CHECKPOINT,
    WORKER_ERRORS,
    STOP,
    RESULT,
)

TRAINING: Final = StepKind("training")
WORKER_GROUP: Final = StepKind("training_workers")
REPORT: Final = StepKind("training_report")
"""A report, from its arrival at the controller until its callbacks have run."""
