"""What an operator may set about Ray: the cluster, and what is reserved on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""How much of a resource. A negative one crashes the raylet of Ray 2.60, so it must not get there."""


Bundles = list[dict[str, Amount]]


Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


class RayConfig(BaseModel):
    """Which Ray cluster the node is started on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: str | None = None
    """The address of an existing cluster, or "auto". By default RAY_ADDRESS, or else a local one of our own."""

    num_cpus: int | None = Field(default=None, gt=0)
    """The CPUs a local cluster of our own offers; by default those of the machine."""


class PlacementConfig(BaseModel):
    """What Ray reserves for the engine before it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bundles: Bundles | None = None
    """The resources of each bundle, such as {CPU: 4}. By default one bundle with one GPU for each of the engine's
    workers, or with one CPU where there is no GPU. An empty list reserves nothing."""

    strategy: Strategy = "PACK"
    """How the bundles are spread over Ray's nodes."""

    timeout_seconds: float = Field(default=300.0, gt=0)
    """How long to wait for the resources, in seconds."""
