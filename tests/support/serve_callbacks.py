"""Callbacks that Ray Serve LLM's replicas import in tests."""

from __future__ import annotations

from typing import Any

from phasebus.bus import Context
from phasebus.initializer import ENGINE_ARGS, LOCAL_NODE_DOWNLOAD_MODEL, PreEngineInit, PreInitialization

SHORTER = 128


def note_phase(phase: str, config: Any, data: Any) -> dict[str, Any]:
    return {"phases": [*data.get("phases", []), phase]}


async def shorten(event: PreEngineInit, context: Context) -> None:
    context[ENGINE_ARGS] = {**context[ENGINE_ARGS], "max_model_len": SHORTER}


async def fetch_nothing(event: PreInitialization, context: Context) -> None:
    context[LOCAL_NODE_DOWNLOAD_MODEL] = "NONE"
