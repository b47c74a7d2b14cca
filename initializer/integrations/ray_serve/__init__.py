"""Ray Serve LLM with phasebus on it, unforked: `BusCallback` for its `callback_config`, `BusServer` for its `server_cls`.

`adapter` is the one file that touches Ray's own classes; `replica` is a replica's start as phases of ours.
"""

from phasebus.initializer.integrations.ray_serve.adapter import BusCallback, BusServer, RayServeError, check_ray

__all__ = ["BusCallback", "BusServer", "RayServeError", "check_ray"]
