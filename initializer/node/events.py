"""The phases of a node's start-up: their events, in the order of the table, and the kinds of step they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from phasebus.bus import PhaseEvent, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreInitialization(PhaseEvent):
    """Published before anything else: change anything, or set `SKIP_DEFAULT` to take the whole start-up over."""

    phase: ClassVar[str] = "pre_initialization"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomInitialization(PhaseEvent):
    """Published only after `SKIP_DEFAULT`, in place of download and placement: provide what the node is to use."""

    phase: ClassVar[str] = "custom_initialization"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreDownload(PhaseEvent):
    """Published before the model is fetched: change its source, mode, destination, extra files, or skip it."""

    phase: ClassVar[str] = "pre_download"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostDownload(PhaseEvent):
    """Published when the model is there: see `DOWNLOAD_RESULT`."""

    phase: ClassVar[str] = "post_download"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrePlacementGroup(PhaseEvent):
    """Published before anything is reserved: change `PLACEMENT_BUNDLES` and `PLACEMENT_STRATEGY`.

    Or bring a group that is reserved already as `PLACEMENT_GROUP`; whoever brings one gives it back.
    """

    phase: ClassVar[str] = "pre_placement_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostPlacementGroup(PhaseEvent):
    """Published when the resources are reserved: see or replace `PLACEMENT_GROUP`."""

    phase: ClassVar[str] = "post_placement_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreEngineInit(PhaseEvent):
    """Published before the engine starts: change `ENGINE_ARGS`, `ENGINE_ENV` and `RUNTIME_ENV`."""

    phase: ClassVar[str] = "pre_engine_init"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostEngineInit(PhaseEvent):
    """Published when the engine answers: see `ENGINE`; register parsers, warm caches."""

    phase: ClassVar[str] = "post_engine_init"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostInitialization(PhaseEvent):
    """Published last, before the node counts as ready."""

    phase: ClassVar[str] = "post_initialization"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDied(PhaseEvent):
    """Published on a node that was ready when its engine is found to be gone; no phase of the start.

    Attributes:
        error: Why.
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
