"""The configuration of a cluster: several models side by side, or one on several nodes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from phasebus.bus import Key
from phasebus.initializer.node.config import LLMConfig, ServiceConfig
from phasebus.initializer.pipeline.callbacks import Callbacks
from phasebus.initializer.pipeline.settings import Section, read_fields, validated
from phasebus.initializer.ray.config import RayConfig, Strategy


class ClusterConfig(Section):
    """Several models on one Ray cluster."""

    models: list[LLMConfig] = Field(min_length=1)
    """The models, each with the number of its nodes and replicas."""

    name: str = "cluster"
    """The cluster's name in traces."""

    callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers that run on the driver; those of a model run on its nodes."""

    keys: list[Any] = Field(default_factory=list)
    """Keys with rules for merging the values of several nodes; without a rule, the values must be equal."""

    strategy: Strategy | None = None
    """Ray's placement strategy for the bundles; by default one that gives each model its number of nodes."""

    placement_timeout_seconds: float = Field(default=300.0, gt=0)
    """Maximum time to wait for the resources of all nodes, in seconds."""

    silence_seconds: float = Field(default=6.0, gt=0)
    """Time without an answer after which a node counts as lost, in seconds."""

    ray: RayConfig = Field(default_factory=RayConfig)
    """The Ray cluster."""

    service: ServiceConfig = Field(default_factory=ServiceConfig)
    """The HTTP service of the whole cluster."""

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: list[Any]) -> list[Any]:
        if wrong := [key for key in keys if not isinstance(key, Key)]:
            raise ValueError(f"{wrong[0]!r} is not a Key. Use Key({wrong[0]!r}, on_conflict=…)")
        return keys

    @classmethod
    def of(cls, config: LLMConfig | ClusterConfig) -> Self | ClusterConfig:
        """Return `config` as the configuration of a cluster; a single model becomes a cluster of one."""
        if isinstance(config, ClusterConfig):
            return config
        placement = config.placement
        return cls(
            models=[config],
            callbacks=config.driver_callbacks,
            strategy=placement.strategy if "strategy" in placement.model_fields_set else None,
            placement_timeout_seconds=placement.timeout_seconds,
            ray=config.ray,
            service=config.service,
        )


def load_cluster_config(path: Path, assignments: Iterable[str] = ()) -> LLMConfig | ClusterConfig:
    """Read a YAML file with the fields of one model, or with those of a cluster if it has the field `models`.

    Args:
        path: The file.
        assignments: As for `load_config`.

    Raises:
        ConfigError: As for `load_config`.
    """
    fields = read_fields(path, assignments)
    if "models" in fields:
        return validated(path, fields, ClusterConfig)
    return validated(path, fields, LLMConfig)
