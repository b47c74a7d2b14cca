"""The configuration of Ray: the cluster, and the resources to reserve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""An amount of a resource. A negative one is rejected, because it crashes the raylet of Ray 2.60."""


Bundles = list[dict[str, Amount]]


Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


class RayConfig(BaseModel):
    """The Ray cluster that the node is started on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: str | None = None
    """The address of an existing cluster, or "auto". By default RAY_ADDRESS, or else a new local cluster."""

    connect_seconds: float = Field(default=300.0, gt=0)
    """How long to wait until an existing cluster accepts connections, in seconds."""

    num_cpus: int | None = Field(default=None, gt=0)
    """Number of CPUs of a new local cluster; by default those of the machine."""


class PlacementConfig(BaseModel):
    """The resources that Ray reserves for the engine before it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bundles: Bundles | None = None
    """The resources of each bundle, such as {CPU: 4}. By default one bundle with one GPU for each of the engine's
    workers, or with one CPU where there is no GPU. An empty list reserves nothing."""

    strategy: Strategy = "PACK"
    """How the bundles are spread over Ray's nodes."""

    timeout_seconds: float = Field(default=300.0, gt=0)
    """Maximum time to wait for the resources, in seconds."""
