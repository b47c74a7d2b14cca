"""phasebus in an unmodified Ray Serve LLM: `BusCallback` for its `callback_config`, `BusServer` for its `server_cls`.

`adapter` is the only file that uses Ray's own classes; `replica` maps a replica's start to our phases.
"""

from phasebus.initializer.integrations.ray_serve.adapter import BusCallback, BusServer, RayServeError, check_ray

__all__ = ["BusCallback", "BusServer", "RayServeError", "check_ray"]
