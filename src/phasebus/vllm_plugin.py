"""The entry point that vLLM loads in its front end, its engine core and every worker (`vllm.general_plugins`).

It stands outside the rooms because vLLM loads it in every process wherever phasebus is installed: where phasebus is not
used, importing and calling it has to cost nothing.
"""

import os
import sys

TYPE_CHECKING = False  # as in `typing`, which takes time to import
if TYPE_CHECKING:
    from collections.abc import Callable

_MODEL_INSPECTION = "vllm.model_executor.models.registry"
_STEPS_URL, _FORKSERVER = "PHASEBUS_STEPS_URL", "PHASEBUS_FORKSERVER"


def __getattr__(name: str) -> "Callable[[], None]":
    """Return the function `register`; make a fork server of a vLLM command before that.

    vLLM looks up the functions of all plugins before it calls any: a process that is forked now has called none.
    """
    if name != "register":
        raise AttributeError(name)
    if os.environ.pop(_FORKSERVER, "0") != "0" and os.environ.get(_STEPS_URL) and is_command_of_vllm():
        _fork_server()
    return _register


def is_command_of_vllm() -> bool:
    """Return whether this process runs a console script of vLLM's, or one of its modules, and no script of a user's."""
    main = sys.modules["__main__"]
    called = getattr(getattr(main, "main", None), "__module__", "")
    spec = getattr(main, "__spec__", None)
    return f"{called}.".startswith("vllm.") or (spec is not None and spec.name.startswith("vllm."))


def _fork_server() -> None:
    try:
        from phasebus.initializer.engines.vllm.inside.forkserver.begin import fork_server
    except Exception:
        import logging

        logging.getLogger("phasebus.engine").exception("phasebus: no fork server, so vLLM spawns its processes")
    else:
        fork_server()


def _register() -> None:
    """Report the steps of this process, if it was started under phasebus. Never raises: the engine comes first."""
    url = os.environ.get(_STEPS_URL)
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if not url or (main is not None and main.name == _MODEL_INSPECTION):  # that one inspects a model's class, and ends
        return
    try:
        from phasebus.initializer.engines.vllm.inside import plugin

        plugin.start(url)
    except Exception:
        import logging

        logging.getLogger("phasebus.engine").exception("phasebus cannot report the steps of this process")
