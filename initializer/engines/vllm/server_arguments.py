"""The arguments of vLLM's OpenAI server, by name, through the parser of its command line: its types, its checks.

Runs in the engine's process, which has imported vLLM. Read from vLLM 0.33, 0.32 and 0.29.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, NoReturn

from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.vllm.arguments import check_arguments

PARSERS: Final = (
    "vllm.entrypoints.common.cli_args",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.openai.cli_args",
)
"""The modules with the parser: since vLLM 0.33, since 0.29, and before."""

_SET_OTHERWISE: Final = frozenset(
    {"config", "grpc", "grpc_port", "headless", "help", "host", "model_tag", "port", "uds"}
)
"""Arguments of the command that are no settings of a server in this process, or that phasebus sets."""


def parse_server_arguments(args: Mapping[str, Any]) -> argparse.Namespace:
    """Return `args` as the namespace that vLLM's server expects, with the defaults of all other arguments.

    Raises:
        EngineError: vLLM's server has no such argument, or rejects a value.
    """
    from vllm import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise EngineError(f"vLLM's server rejects serve.args: {message}")

    module = import_first(PARSERS)
    parser = module.make_arg_parser(Parser())
    known = {action.dest: action for action in parser._actions}  # noqa: SLF001  # argparse has no other list of them
    engine = {field.name for field in fields(AsyncEngineArgs)}
    if misplaced := sorted(engine & args.keys()):
        raise EngineError(f"{misplaced[0]!r} is an argument of the engine: set engine_args.{misplaced[0]}")
    check_arguments(args, known.keys() - engine - _SET_OTHERWISE, what="server")
    try:
        parsed = parser.parse_args([word for name, value in args.items() for word in words_of(known[name], value)])
        module.validate_parsed_serve_args(parsed)
    except (ValueError, TypeError, KeyError) as error:
        raise EngineError(f"vLLM's server rejects serve.args: {error}") from error
    return argparse.Namespace(**vars(parsed))


def import_first(modules: tuple[str, ...]) -> Any:
    """Import the first of `modules` that this vLLM has.

    Raises:
        EngineError: It has none.
    """
    for name in modules:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    raise EngineError(f"this vLLM has none of {', '.join(modules)}, so it cannot serve: start it without (serve: null)")


def words_of(action: argparse.Action, value: object) -> Iterator[str]:
    """Yield the words of a command line that set an option to `value`; none for None."""
    option = next(each for each in action.option_strings if each.startswith("--"))
    if value is None:
        return
    if isinstance(value, bool) and action.nargs == 0:
        if isinstance(action, argparse.BooleanOptionalAction):
            yield option if value else next(each for each in action.option_strings if each.startswith("--no-"))
        elif value:
            yield option
    elif isinstance(value, list) and action.nargs in ("+", "*"):
        yield option
        yield from map(_text, value)
    elif isinstance(value, list) and type(action).__name__ == "_AppendAction":
        for each in value:
            yield f"{option}={_text(each)}"
    else:
        yield f"{option}={_text(value)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
