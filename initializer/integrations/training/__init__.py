"""Training as a phase list: callbacks can change a run of Ray Train, add to its reports, and stop it."""

from phasebus.initializer.integrations.training.config import TrainingConfig
from phasebus.initializer.integrations.training.events import (
    CHECKPOINT,
    LOOP_CONFIG,
    METRICS,
    RESULT,
    RUN_CONFIG,
    SCALING_CONFIG,
    STOP,
    TRAINER_OPTIONS,
    WORKER_ERRORS,
    CheckpointSaved,
    PostTraining,
    PostWorkerGroup,
    PreTraining,
    PreWorkerGroup,
    Reported,
    WorkersFailed,
)
from phasebus.initializer.integrations.training.handler import WorkersError
from phasebus.initializer.integrations.training.run import TrainingError, run_training

__all__ = [
    "CHECKPOINT",
    "LOOP_CONFIG",
    "METRICS",
    "RESULT",
    "RUN_CONFIG",
    "SCALING_CONFIG",
    "STOP",
    "TRAINER_OPTIONS",
    "WORKER_ERRORS",
    "CheckpointSaved",
    "PostTraining",
    "PostWorkerGroup",
    "PreTraining",
    "PreWorkerGroup",
    "Reported",
    "TrainingConfig",
    "TrainingError",
    "WorkersError",
    "WorkersFailed",
    "run_training",
]
