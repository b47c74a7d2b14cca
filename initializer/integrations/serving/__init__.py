"""HTTP serving as a phase list: callbacks of an ASGI middleware can read, change and answer every request.

The middleware is independent of models and engines, so it wraps any Starlette or FastAPI application.
"""

from phasebus.initializer.integrations.serving.config import ServingConfig
from phasebus.initializer.integrations.serving.events import ANSWER, REQUEST, RESPONSE, PostRequest, PreRequest
from phasebus.initializer.integrations.serving.middleware import ServingMiddleware
from phasebus.initializer.integrations.serving.request import Request
from phasebus.initializer.integrations.serving.response import ResponseStart

__all__ = [
    "ANSWER",
    "REQUEST",
    "RESPONSE",
    "PostRequest",
    "PreRequest",
    "Request",
    "ResponseStart",
    "ServingConfig",
    "ServingMiddleware",
]
