"""The HTTP service: metrics, probes and the page, served from a thread that the rest of the process cannot block."""

from phasebus.telemetry.service.access import NO_TOKEN, OWN_TOKEN, Access, visible_status
from phasebus.telemetry.service.limits import Limits
from phasebus.telemetry.service.local_token import offered_token
from phasebus.telemetry.service.server import PortTakenError, Server, url_of_address
from phasebus.telemetry.service.stream import build_app, page_routes

__all__ = [
    "NO_TOKEN",
    "OWN_TOKEN",
    "Access",
    "Limits",
    "PortTakenError",
    "Server",
    "build_app",
    "offered_token",
    "page_routes",
    "url_of_address",
    "visible_status",
]
