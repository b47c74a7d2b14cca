"""HTTP serving as a phase list: an ASGI middleware whose callbacks may change, answer and see every request.

It knows ASGI and nothing of models or engines, so it goes around any Starlette or FastAPI application.
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
