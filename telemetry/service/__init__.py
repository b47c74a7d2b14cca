"""The HTTP service: metrics and probes, from the first second and whatever blocks the rest of the process."""

from phasebus.telemetry.service.app import build_app
from phasebus.telemetry.service.server import PortTakenError, Server
from phasebus.telemetry.service.stream import page_routes

__all__ = ["PortTakenError", "Server", "build_app", "page_routes"]
