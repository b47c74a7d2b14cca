"""The engine arguments vLLM knows, read from its source: importing it to ask takes half a minute. Read from vLLM 0.32."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from phasebus.initializer.engines.protocol import EngineError

_SOURCE = Path("engine", "arg_utils.py")
_CLASSES = ("EngineArgs", "AsyncEngineArgs")


@cache
def known_arguments() -> frozenset[str]:
    """Return the names of vLLM's engine arguments; none if vLLM is not here, or does not keep them where it did."""
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


def check_arguments(args: Iterable[str], known: Collection[str]) -> None:
    """Check that every one of `args` is among the `known` ones; where none are known, all are taken.

    Raises:
        EngineError: One is not; the message has the nearest that is.
    """
    if known and (unknown := sorted(set(args) - set(known))):
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EngineError(f"vLLM has no engine argument {unknown[0]!r}{hint}")
