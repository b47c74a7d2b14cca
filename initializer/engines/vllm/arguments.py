"""vLLM's engine arguments, read from its source: importing it takes half a minute. Read from vLLM 0.32."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.weights import missing_shards_problem
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.seams import parsed_source

_SOURCE = Path("engine", "arg_utils.py")
_CLASSES = ("EngineArgs", "AsyncEngineArgs")
_SERVER_SOURCES = tuple(Path("entrypoints", each, "cli_args.py") for each in ("common", "launchers", "openai"))
"""The files with the arguments of vLLM's server: since vLLM 0.33, since 0.29, and before."""
_SERVER_CLASSES = ("BaseFrontendArgs", "FrontendArgs")
_SERVER_FIELDS = ("host", "port")
"""Arguments of the server that are fields of `serve`; the others belong into `serve.args`."""


@cache
def known_arguments() -> frozenset[str]:
    """Return the names of vLLM's engine arguments; an empty set if vLLM, or the file that has them, is not found."""
    return _fields_of(_SOURCE, _CLASSES)


@cache
def known_server_arguments() -> frozenset[str]:
    """Return the names of the arguments of vLLM's server; an empty set if vLLM, or the file that has them, is not found."""
    return frozenset().union(*(_fields_of(source, _SERVER_CLASSES) for source in _SERVER_SOURCES))


def _fields_of(source: Path, classes: Collection[str]) -> frozenset[str]:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return frozenset()
    try:
        module = parsed_source((Path(spec.origin).parent / source).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        field.target.id
        for each in module.body
        if isinstance(each, ast.ClassDef) and each.name in classes
        for field in each.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )


def check_no_server_arguments(args: Iterable[str], known: Collection[str], server: Collection[str]) -> None:
    """Check that no argument of vLLM's server is among the engine's.

    Args:
        args: Names of arguments.
        known: The engine's arguments; an empty set accepts everything.
        server: The server's arguments.

    Raises:
        EngineError: One is; the message has the field that it belongs into.
    """
    if known and (misplaced := sorted(set(args).intersection(server).difference(known))):
        name = misplaced[0]
        field = f"serve.{name}" if name in _SERVER_FIELDS else f"serve.args.{name}"
        raise EngineError(f"vLLM has no engine argument {name!r}; it is an argument of vLLM's server: set {field}")


def check_arguments(args: Iterable[str], known: Collection[str], what: str = "engine") -> None:
    """Check that all `args` are among the `known` ones; an empty `known` accepts everything.

    Args:
        args: Names of arguments.
        known: The names that exist.
        what: The part of vLLM that they belong to, for the message.

    Raises:
        EngineError: One is unknown; the message has the nearest known one.
    """
    if known and (unknown := sorted(set(args) - set(known))):
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EngineError(f"vLLM has no {what} argument {unknown[0]!r}{hint}")


_FROM_FILES = ("auto", "hf", "mistral", "safetensors", "pt")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def check_weights(model: str, args: Mapping[str, Any]) -> None:
    """Check that a model's folder has its weights, unless `args` name a `load_format` that does not read them there.

    Raises:
        EngineError: The model is a folder without weights, or without a shard that its index names.
    """
    folder = Path(model)
    if not os.path.isdir(folder) or str(args.get("load_format", "auto")) not in _FROM_FILES:
        return
    names = sorted(file.name for file in folder.iterdir())
    if not any(name.endswith(_WEIGHTS) for name in names):
        there = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise EngineError(
            f"{folder} has no weights (no file ends in {', '.join(_WEIGHTS)}; there are: {there}); fetch them too "
            "(local_node_download_model: MODEL_AND_TOKENIZER), or start with random ones: engine_args: {load_format: dummy}"
        )
    if (problem := missing_shards_problem(folder)) is not None:
        raise EngineError(f"{problem}; fetch or copy the model again")
