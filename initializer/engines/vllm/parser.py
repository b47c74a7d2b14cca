"""Checking arguments with vLLM's own configuration, in a process of its own: the import takes half a minute.

Read from vLLM 0.32: `EngineArgs.create_engine_config` is what every entry point calls first; it reads the model's
configuration and checks the arguments against it and against each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from phasebus.initializer.engines.protocol import EngineError

_MOST_SECONDS: Final = 300.0
_MARK: Final = "phasebus-parser: "
_PROGRAM: Final = f"""
import json, sys
given = json.load(sys.stdin)
rejected = []

def explained(problem):
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    value = repr(problem["input"])
    return f"{{problem['loc'][0]}}: {{message}} (it is {{value if len(value) <= 80 else value[:80] + '…'}})"

def attempt(what, check):
    try:
        check()
    except BaseException as error:
        problems = getattr(error, "errors", None)  # pydantic's message is long
        text = "; ".join(map(explained, problems())) if callable(problems) else str(error)
        rejected.append(f"{{what}}: {{text or type(error).__name__}}")

def check_engine():
    from vllm.engine.arg_utils import AsyncEngineArgs
    AsyncEngineArgs(**given["engine"]).create_engine_config()

def check_server():
    from phasebus.initializer.engines.vllm.server_arguments import parse_server_arguments
    parse_server_arguments(given["server"])

attempt("engine_args", check_engine)
if given["server"]:
    attempt("serve.args", check_server)
print({_MARK!r} + json.dumps("; ".join(rejected)), flush=True)
"""


def parse_arguments(
    model: str, args: Mapping[str, Any], env: Mapping[str, str], server: Mapping[str, Any] | None = None
) -> None:
    """Check that vLLM accepts the arguments together with the model.

    Args:
        model: The path of the model, or its name on the hub.
        args: vLLM's engine arguments, by name.
        env: Environment variables in addition to those of this process.
        server: The arguments of vLLM's OpenAI server, by name; None if it does not serve.

    Raises:
        EngineError: vLLM rejects some of them, or cannot be imported.
    """
    given = {"engine": {"model": model, "distributed_executor_backend": "mp", **args}, "server": server}
    try:
        ended = subprocess.run(  # noqa: S603  # this Python, with a program of ours
            [sys.executable, "-P", "-c", _PROGRAM],
            input=json.dumps(given, default=str),
            env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_PLUGINS": "", **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=_MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"vLLM did not check its arguments within {_MOST_SECONDS:g} s") from None
    marked = [line.removeprefix(_MARK) for line in ended.stdout.splitlines() if line.startswith(_MARK)]
    if not marked:
        last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
        raise EngineError(f"vLLM ended while it checked its arguments: {last}")
    if message := json.loads(marked[-1]):
        raise EngineError(f"vLLM rejects {message}")
