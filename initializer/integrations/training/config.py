"""The configuration of a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from phasebus.initializer.pipeline.callbacks import Callbacks
from phasebus.initializer.pipeline.settings import Section


class TrainingConfig(Section):
    """A training run that has phases."""

    train_loop: Callable[..., Any]
    """The function that each worker runs: Ray's train_loop_per_worker."""

    loop_config: dict[str, Any] = Field(default_factory=dict)
    """The argument of `train_loop` in each worker: Ray's train_loop_config."""

    scaling_config: Any = None
    """Ray's ScalingConfig; by default one worker."""

    run_config: Any = None
    """Ray's RunConfig."""

    trainer: Callable[..., Any] | None = None
    """A trainer class of Ray Train v2, such as ray.train.torch.TorchTrainer; by default DataParallelTrainer."""

    trainer_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the trainer: datasets, torch_config, …"""

    callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers, in the order they run: callables, or "module:name" to import one."""

    name: str = "training"
    """The name of the run in spans, metrics and messages."""
