"""What a launcher may offer beside the protocol: to observe an engine that another program starts, and to describe it.

A launcher that has all methods of `ObservableLauncher`, `CommandLauncher` or `InspectableLauncher` answers for its engine in
Ray Serve LLM, under ``phasebus run`` or in ``phasebus doctor``. No base class is needed, and one without them works.
"""

from __future__ import annotations

from phasebus.initializer.engines.optional.describing import (
    CachesInFolders,
    Check,
    DescribesFactors,
    InspectableLauncher,
    NamesSteps,
    ParsingLauncher,
    ServingEngine,
    SuggestsLevers,
    Versions,
    announced_steps,
    url_of,
)
from phasebus.initializer.engines.optional.fork_server import (
    FORKSERVER,
    NO_FORKSERVER,
    BeginsForkServer,
    ForkedCommand,
    ForksCommands,
    KeepsForkServer,
)
from phasebus.initializer.engines.optional.observing import (
    CommandLauncher,
    CommandObserver,
    EndsAfterDeaths,
    EngineObserver,
    NamesWeights,
    ObservableLauncher,
    ObservedSteps,
    PreloadsEngine,
)

__all__ = [
    "FORKSERVER",
    "NO_FORKSERVER",
    "BeginsForkServer",
    "CachesInFolders",
    "Check",
    "CommandLauncher",
    "CommandObserver",
    "DescribesFactors",
    "EndsAfterDeaths",
    "EngineObserver",
    "ForkedCommand",
    "ForksCommands",
    "InspectableLauncher",
    "KeepsForkServer",
    "NamesSteps",
    "NamesWeights",
    "ObservableLauncher",
    "ObservedSteps",
    "ParsingLauncher",
    "PreloadsEngine",
    "ServingEngine",
    "SuggestsLevers",
    "Versions",
    "announced_steps",
    "url_of",
]
