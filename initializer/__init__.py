"""What a start-up does: the phases of a node, their order, the download, the placement, the engine, the command line.

The outermost room: it knows all the others. `node` has the phases in order; `assembly` and `cli` put the observers on.
"""

from phasebus.initializer.config import ConfigError, LLMConfig, load_config
from phasebus.initializer.context import (
    DOWNLOAD_RESULT,
    ENGINE,
    ENGINE_ARGS,
    ENGINE_ENV,
    LOCAL_NODE_DOWNLOAD_MODEL,
    MODEL,
    NODE_KEYS,
    PLACEMENT_BUNDLES,
    PLACEMENT_GROUP,
    PLACEMENT_STRATEGY,
    RUNTIME_ENV,
    SKIP_DEFAULT,
)
from phasebus.initializer.downloads import (
    DownloadError,
    DownloadFailed,
    DownloadFinished,
    DownloadProgress,
    DownloadResult,
    DownloadStarted,
)
from phasebus.initializer.engines import EngineError
from phasebus.initializer.node import Node, initialize_node
from phasebus.initializer.phases import (
    NODE_PHASES,
    CustomInitialization,
    EngineStepFailed,
    EngineStepFinished,
    EngineStepStarted,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    PostDownload,
    PostEngineInit,
    PostInitialization,
    PostPlacementGroup,
    PreDownload,
    PreEngineInit,
    PreInitialization,
    PrePlacementGroup,
)
from phasebus.initializer.pipeline import Phase, run_phases
from phasebus.initializer.ray.cluster import RayError
from phasebus.initializer.ray.placement import PlacementError

__all__ = [
    "DOWNLOAD_RESULT",
    "ENGINE",
    "ENGINE_ARGS",
    "ENGINE_ENV",
    "LOCAL_NODE_DOWNLOAD_MODEL",
    "MODEL",
    "NODE_KEYS",
    "NODE_PHASES",
    "PLACEMENT_BUNDLES",
    "PLACEMENT_GROUP",
    "PLACEMENT_STRATEGY",
    "RUNTIME_ENV",
    "SKIP_DEFAULT",
    "ConfigError",
    "CustomInitialization",
    "DownloadError",
    "DownloadFailed",
    "DownloadFinished",
    "DownloadProgress",
    "DownloadResult",
    "DownloadStarted",
    "EngineError",
    "EngineStepFailed",
    "EngineStepFinished",
    "EngineStepStarted",
    "LLMConfig",
    "Node",
    "Phase",
    "PhaseFailed",
    "PhaseFinished",
    "PhaseStarted",
    "PlacementError",
    "PostDownload",
    "PostEngineInit",
    "PostInitialization",
    "PostPlacementGroup",
    "PreDownload",
    "PreEngineInit",
    "PreInitialization",
    "PrePlacementGroup",
    "RayError",
    "initialize_node",
    "load_config",
    "run_phases",
]
