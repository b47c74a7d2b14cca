"""The events of a node's phases, in order, and the step kind of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from phasebus.bus import PhaseEvent, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreInitialization(PhaseEvent):
    """Published first: change anything, or set `SKIP_DEFAULT` to replace the whole start-up."""

    phase: ClassVar[str] = "pre_initialization"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomInitialization(PhaseEvent):
    """Published only if `SKIP_DEFAULT` is set, in place of download and placement: provide their results."""

    phase: ClassVar[str] = "custom_initialization"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreDownload(PhaseEvent):
    """Published before the download: change its source, mode, destination or extra files, or skip it."""

    phase: ClassVar[str] = "pre_download"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostDownload(PhaseEvent):
    """Published after the download: read `DOWNLOAD_RESULT`."""

    phase: ClassVar[str] = "post_download"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrePlacementGroup(PhaseEvent):
    """Published before resources are reserved: change `PLACEMENT_BUNDLES` and `PLACEMENT_STRATEGY`.

    Alternatively provide a reserved `PLACEMENT_GROUP`, which the callback must then release.
    """

    phase: ClassVar[str] = "pre_placement_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostPlacementGroup(PhaseEvent):
    """Published when the resources are reserved: read or replace `PLACEMENT_GROUP`."""

    phase: ClassVar[str] = "post_placement_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreEngineInit(PhaseEvent):
    """Published before the engine starts: change `ENGINE_ARGS`, `ENGINE_ENV` and `RUNTIME_ENV`."""

    phase: ClassVar[str] = "pre_engine_init"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostEngineInit(PhaseEvent):
    """Published when the engine answers: use `ENGINE`, for example to register parsers or warm up caches."""

    phase: ClassVar[str] = "post_engine_init"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostInitialization(PhaseEvent):
    """Published last, before the node becomes ready."""

    phase: ClassVar[str] = "post_initialization"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDied(PhaseEvent):
    """Published on a ready node when its engine has died. It belongs to no phase of the start.

    Attributes:
        error: The reason.
    """

    phase: ClassVar[str] = "engine_died"
    error: str = ""


NODE_PHASES: tuple[type[PhaseEvent], ...] = (
    PreInitialization,
    CustomInitialization,
    PreDownload,
    PostDownload,
    PrePlacementGroup,
    PostPlacementGroup,
    PreEngineInit,
    PostEngineInit,
    PostInitialization,
)
"""Every phase event of a node's start-up, in order."""


NODE = StepKind("node")

ENGINE_RESTART = StepKind("engine_restart")
