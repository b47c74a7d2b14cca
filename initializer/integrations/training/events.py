"""The phases of a training run, the entries of its context, and the kinds of step it is made of."""

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
    """Published before a group of workers is started; again after each failure that is recovered from."""

    phase: ClassVar[str] = "pre_worker_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostWorkerGroup(PhaseEvent):
    """Published when the workers of a group are ready, before they train."""

    phase: ClassVar[str] = "post_worker_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported(PhaseEvent):
    """Published when every worker has reported, before Ray keeps it: add to `METRICS`, set `STOP` to end the run."""

    phase: ClassVar[str] = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(PhaseEvent):
    """Published after `Reported` if a checkpoint came with the report; it is in the run's storage: see `CHECKPOINT`."""

    phase: ClassVar[str] = "checkpoint_saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersFailed(PhaseEvent):
    """Published when workers have raised: see `WORKER_ERRORS`. What follows is up to the run's FailureConfig."""

    phase: ClassVar[str] = "workers_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostTraining(PhaseEvent):
    """Published when the run has finished: read or replace `RESULT`. A run that fails has a failed step instead."""

    phase: ClassVar[str] = "post_training"


LOOP_CONFIG: Final = Key[dict[str, Any]](
    "loop_config", validate=TypeAdapter(dict[str, Any]).validate_python, doc="What each worker's loop is given."
)
SCALING_CONFIG: Final = Key[Any]("scaling_config", doc="Ray's ScalingConfig.")
RUN_CONFIG: Final = Key[Any]("run_config", doc="Ray's RunConfig.")
TRAINER_OPTIONS: Final = Key[dict[str, Any]](
    "trainer_options",
    validate=TypeAdapter(dict[str, Any]).validate_python,
    doc="What else the trainer is given: datasets, torch_config, …",
)
METRICS: Final = Key[dict[str, Any]](
    "metrics",
    validate=TypeAdapter(dict[str, Any]).validate_python,
    doc="What the first worker reported; what is written is what Ray keeps.",
)
CHECKPOINT: Final = Key[str | None]("checkpoint", doc="The path of the checkpoint that came with the report, or None.")
WORKER_ERRORS: Final = Key[dict[int, str]]("worker_errors", doc="What the workers raised, by their ranks.")
STOP: Final = Key[bool](
    "stop",
    validate=TypeAdapter(bool).validate_python,
    doc="True ends the run, and ends it well, when Ray next looks at its workers: at once where it is set at reported.",
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
