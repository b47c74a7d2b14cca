"""phasebus in an unmodified Ray Serve LLM: `BusCallback` for its `callback_config`, `BusServer` for its `server_cls`.

`adapter` has Ray's own classes, and `node_initialization` one of its functions; `replica` maps a replica's start to our phases. In the program that
builds an application, `application` observes its start, and each replica joins that trace; without such a program one of the
replicas does, in a `shared_trace`.
"""

import os
from typing import TYPE_CHECKING

from phasebus.initializer.integrations.ray_serve import first_line as first_line
from phasebus.lazy import names_of_public

if first_line.BEGINS_FORKSERVER in os.environ:
    from phasebus.initializer.integrations.ray_serve.preloading import preload_early

    preload_early()

if TYPE_CHECKING:
    from phasebus.initializer.integrations.ray_serve._public import *  # noqa: F403
    from phasebus.initializer.integrations.ray_serve._public import __all__ as __all__
else:
    __getattr__ = names_of_public(__name__)
