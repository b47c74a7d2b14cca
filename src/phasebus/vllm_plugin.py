"""The entry point that vLLM loads in its front end, its engine core and every worker (`vllm.general_plugins`).

It stands outside the rooms because vLLM loads it in every process wherever phasebus is installed: where phasebus is not
used, importing and calling it has to cost nothing.
"""

import os
import sys

_MODEL_INSPECTION = "vllm.model_executor.models.registry"


def register() -> None:
    """Report the steps of this process, if it was started under phasebus. Never raises: the engine comes first."""
    url = os.environ.get("PHASEBUS_STEPS_URL")
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if not url or (main is not None and main.name == _MODEL_INSPECTION):  # that one inspects a model's class, and ends
        return
    try:
        from phasebus.initializer.engines.vllm.inside import plugin

        plugin.start(url)
    except Exception:
        import logging

        logging.getLogger("phasebus.engine").exception("phasebus cannot report the steps of this process")
