"""The environment variables of our plugin."""

from __future__ import annotations

from typing import Final

STEPS_URL: Final = "PHASEBUS_STEPS_URL"
"""The URL that receives notices of steps; without it the plugin does nothing (`phasebus.vllm_plugin`)."""

GATE_URL: Final = "PHASEBUS_GATE_URL"
"""The URL that the front end polls until its model is there; without it, the model is there."""

SAMPLING: Final = "PHASEBUS_ITERATION_SAMPLING"
"""One iteration in so many gets a span while the engine serves; 0 for none."""

RELAY_TOKEN: Final = "PHASEBUS_RELAY_TOKEN"  # noqa: S105  # the name of a variable
"""Holds the bearer token that each request to these URLs carries."""

FORKSERVER: Final = "PHASEBUS_FORKSERVER"
"""Makes a command of vLLM's fork a server, which its processes are forked from; "0" for none."""
