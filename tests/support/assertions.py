"""A lint of our own: a test that asserts nothing cannot fail. Run as a program, it lists such tests and exits with 1."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ASSERTING_CALLS = frozenset({"raises", "warns", "fail", "deprecated_call", "expect"})
"""Of pytest, and of playwright."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tests_without_assertion(files: Iterable[Path]) -> Iterator[str]:
    """Yield ``path:line: name`` of each test that neither asserts nor calls a function of these files that does."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, Function)]
    asserting = {function.name for function in functions if _asserts(function)}
    while callers := {f.name for f in functions if f.name not in asserting and not asserting.isdisjoint(_called(f))}:
        asserting |= callers
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if (
                isinstance(node, Function)
                and node.name.startswith("test_")
                and not (_asserts(node) or not asserting.isdisjoint(_called(node)))
            ):
                yield f"{path}:{node.lineno}: {node.name}"


def _asserts(function: Function) -> bool:
    nodes = list(ast.walk(function))
    raised = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return (
        any(isinstance(node, ast.Assert) for node in nodes)
        or "AssertionError" in raised
        or not ASSERTING_CALLS.isdisjoint(_called(function))
    )


def _called(function: Function) -> set[str]:
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            target = node.func
            names.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", ""))
    return names


if __name__ == "__main__":
    found = list(tests_without_assertion(sorted(Path("tests").rglob("*.py"))))
    sys.stdout.writelines(f"{line}: asserts nothing\n" for line in found)
    sys.exit(1 if found else 0)
