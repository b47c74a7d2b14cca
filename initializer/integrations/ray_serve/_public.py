"""The public names, which need Ray Serve LLM."""

from phasebus.initializer.integrations.ray_serve.adapter import BusCallback, BusServer, RayServeError, check_ray

__all__ = ["BusCallback", "BusServer", "RayServeError", "check_ray"]
