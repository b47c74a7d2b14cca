"""Reading YAML with limits. It is a separate module because a node does not need the YAML library, which is slow to import.

A scalar such as ``9e-1`` is a number, as in YAML 1.2 and JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 1_000_000
MOST_VALUES = 10_000
"""Maximum number of keys and values in a file; an alias counts as all the values it refers to."""

DEEPEST = 50
"""Maximum depth of nested mappings and lists."""

_EXPONENT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)[eE][-+]?[0-9]+$")
_COMMIT = re.compile(r"^[0-9]+e[0-9]+$")
_COMMIT_CHARACTERS = 7
"""Git's shortest abbreviation of a commit: ``1234e56`` is a commit, not a number."""


def read(path: Path) -> Any:
    """Return the content of the file at `path`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not YAML, exceeds a limit, or has a mapping with a key twice.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        return yaml.load(content, _Loader)  # noqa: S506  # a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except (ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a value does not have the form of its tag ({type(error).__name__}: {error})") from error


class _Loader(yaml.SafeLoader):
    """Rejects files that exceed the limits, and mappings with a key twice, for which YAML silently uses the last value."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._values = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        self._depth += 1
        if self._values > MOST_VALUES:
            raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} keys and values")
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {DEEPEST} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _expanded(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} keys and values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _number_with_exponent(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    text = str(loader.construct_scalar(node))
    if _COMMIT.match(text) and len(text) >= _COMMIT_CHARACTERS:
        return text
    number = float(text)
    return number if math.isfinite(number) else text


_Loader.add_implicit_resolver("!number-with-exponent", _EXPONENT, list("-+.0123456789"))
_Loader.add_constructor("!number-with-exponent", _number_with_exponent)


def _expanded(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return the number of nodes below `node`, itself included, with every alias replaced by its target.

    Args:
        node: The node.
        counted: The counts so far, by the ids of the nodes; 0 for a node that is being counted.

    Raises:
        yaml.YAMLError: An alias refers to a node that contains it.
    """
    if (known := counted.get(id(node))) is not None:
        if known == 0:
            raise yaml.YAMLError("an alias refers to what it is a part of")
        return known
    counted[id(node)] = 0
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [each for pair in node.value for each in pair]
    counted[id(node)] = 1 + sum(_expanded(each, counted) for each in inner)
    return counted[id(node)]
