"""Dataset processing as a phase list: callbacks can change how a Ray Data pipeline is executed."""

from phasebus.initializer.integrations.datasets.config import DatasetConfig
from phasebus.initializer.integrations.datasets.events import (
    MAX_BLOCK_BYTES,
    OPERATORS,
    RESOURCE_LIMITS,
    RESULT,
    STATS,
    PostDataset,
    PostExecution,
    PreDataset,
    PreExecution,
)
from phasebus.initializer.integrations.datasets.run import DatasetError, run_dataset

__all__ = [
    "MAX_BLOCK_BYTES",
    "OPERATORS",
    "RESOURCE_LIMITS",
    "RESULT",
    "STATS",
    "DatasetConfig",
    "DatasetError",
    "PostDataset",
    "PostExecution",
    "PreDataset",
    "PreExecution",
    "run_dataset",
]
