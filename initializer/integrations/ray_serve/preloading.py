"""The imports of an engine's processes, which begin beside those of the replica."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from phasebus.initializer.engines.optional import FORKSERVER, PreloadsEngine
from phasebus.initializer.engines.protocol import ForkServerUse
from phasebus.initializer.engines.registry import find_observer
from phasebus.initializer.integrations.ray_serve.first_line import BEGINS_FORKSERVER
from phasebus.initializer.integrations.ray_serve.status import is_replica

logger = logging.getLogger("phasebus.serve")

_DEFAULT: Final = "default"
_USES: Final[Mapping[str, ForkServerUse | None]] = {"owned": "owned", "keep": "keep", _DEFAULT: None}


def preload_engine(use: ForkServerUse | None = None) -> None:
    """Begin the imports of the engine's processes, if they have not begun; never raise: the replica starts without.

    Args:
        use: The fork server that they are forked from; None for the one that the environment names.
    """
    try:
        observer = find_observer()
        if isinstance(observer, PreloadsEngine):
            observer.preload({**os.environ, **({} if use is None else {FORKSERVER: use})})
    except Exception as error:  # noqa: BLE001  # of an engine of another package, for example
        logger.warning("the imports of the engine's processes begin with them: %s: %s", type(error).__name__, error)


def early_preloading(callback_options: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the variables by which a replica calls `preload_engine` at its first line.

    Args:
        callback_options: The arguments of its `BusCallback`.
    """
    use = callback_options.get("forkserver") or _DEFAULT
    return {BEGINS_FORKSERVER: use} if use in _USES else {}


def preload_early(environment: Mapping[str, str] = os.environ) -> None:
    """Begin the imports of the engine's processes, if this process is a replica that was started with `early_preloading`.

    Processes that a replica starts may have its variables, too.
    """
    use = environment.get(BEGINS_FORKSERVER, "")
    if use in _USES and is_replica():
        preload_engine(_USES[use])
