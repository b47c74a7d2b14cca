"""vLLM's engine arguments, read from its source: importing it takes half a minute. Read from vLLM 0.32."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.weights import missing_shards_problem
from phasebus.initializer.engines.protocol import EngineError

_SOURCE = Path("engine", "arg_utils.py")
_CLASSES = ("EngineArgs", "AsyncEngineArgs")


@cache
def known_arguments() -> frozenset[str]:
    """Return the names of vLLM's engine arguments; an empty set if vLLM, or the file that has them, is not found."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return frozenset()
    try:
        module = ast.parse((Path(spec.origin).parent / _SOURCE).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        field.target.id
        for each in module.body
        if isinstance(each, ast.ClassDef) and each.name in _CLASSES
        for field in each.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )


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
    if not folder.is_dir() or str(args.get("load_format", "auto")) not in _FROM_FILES:
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
