"""Reading YAML with limits. It is a separate module because a node does not need the YAML library, which is slow to import.

A scalar such as ``9e-1`` is a number, as in YAML 1.2 and JSON; ``1e+06``, as Helm writes it, is a whole one. References to environment variables are replaced in values,
after the file was parsed: a variable's value cannot add keys.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from phasebus.initializer.pipeline.references import MAX_CHARACTERS, TOO_LONG, Expanded, VariableError, expand

MOST_BYTES = 1_000_000
MOST_VALUES = 10_000
"""Maximum number of keys and values in a file; an alias counts as all the values it refers to."""

DEEPEST = 50
"""Maximum depth of nested mappings and lists."""

_EXPONENT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)[eE][-+]?[0-9]+$")
_WHOLE_OF_GO = re.compile(r"^[-+]?[0-9](?:\.[0-9]+)?e\+[0-9]{2}$")
"""How Go, and so Helm, writes whole numbers from a million on."""

_COMMIT = re.compile(r"^[0-9]+e[0-9]+$")
_COMMIT_CHARACTERS = 7
"""Git's shortest abbreviation of a commit: ``1234e56`` is a commit, not a number."""


_LOOKALIKES: Final = {
    "\u00a0": "no-break space",
    "\u202f": "narrow no-break space",
    "\u3000": "ideographic space",
    "\u200b": "zero-width space",
    "\ufeff": "byte order mark",
    "\u201c": "typographic quote",
    "\u201d": "typographic quote",
    "\u201e": "typographic quote",
    "\u2018": "typographic quote",
    "\u2019": "typographic quote",
    "\uff1a": "full-width colon",
}
"""Characters that a text copied from a page has in place of others, which YAML takes for letters."""

_EXPANDED_TAG: Final = "!expanded"


def read(file: Path | int, variables: Mapping[str, str] = os.environ) -> Any:
    """Return the content of a file, a path or a descriptor, with the references to `variables` replaced.

    Raises:
        OSError: It cannot be read.
        VariableError: It refers to a variable that is not set, or a reference is malformed.
        ValueError: It is not YAML, exceeds a limit, or has a mapping with a key twice.
    """
    with open(file, "rb", closefd=not isinstance(file, int)) as opened:
        content = opened.read(MOST_BYTES + 1)
    value = parse(content, variables)
    if isinstance(value, str) and (found := _first_lookalike(content.decode("utf-8", "replace"))) is not None:
        raise ValueError(found)  # such as a no-break space after a colon, which makes one text of the line
    return value


def parse(content: bytes, variables: Mapping[str, str] | None = None) -> Any:
    """Return the value of a YAML document.

    Args:
        content: The document.
        variables: The environment variables that it may refer to; None leaves references as they are.

    Raises:
        VariableError: As for `read`.
        ValueError: As for `read`.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        return yaml.load(content, partial(_Loader, variables=variables))  # type: ignore[arg-type]  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        hint = ""
        if variables is not None and b"${" in content and "flow" in str(error):
            hint = '\ninside { } and [ ], quote a reference to a variable: "${NAME}"'
        elif (found := _first_lookalike(content.decode("utf-8", "replace"))) is not None:
            hint = f"\n{found}"
        raise ValueError(f"{_explained(error)}{hint}") from error
    except VariableError:
        raise
    except (ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a value does not have the form of its tag ({type(error).__name__}: {error})") from error


def _explained(error: yaml.YAMLError) -> str:
    """Return the line, the column and the reason of an error, with the text at that place."""
    mark = getattr(error, "problem_mark", None)
    if mark is None or not (problem := getattr(error, "problem", None)):
        return str(error)
    advice = "; indent with spaces" if "'\\t'" in problem else ""
    begun = getattr(error, "context_mark", None)
    context = f" ({error.context}, from line {begun.line + 1} on)" if begun and begun.line != mark.line else ""  # type: ignore[attr-defined]
    return "\n".join(
        filter(
            None, [f"line {mark.line + 1}, column {mark.column + 1}: {problem}{advice}{context}", mark.get_snippet()]
        )
    )


def _first_lookalike(text: str) -> str | None:
    """Return the line of the first character of `_LOOKALIKES` in a document, and its name; None without one."""
    for number, line in enumerate(text.splitlines(), 1):
        for character in line:
            if character in _LOOKALIKES and (number > 1 or character != "\ufeff"):
                return f"line {number} has a {_named(character)}"
    return None


def _named(character: str) -> str:
    return f"{_LOOKALIKES[character]} (U+{ord(character):04X}), which is no plain one; type it again"


def _odd_end(text: str) -> str | None:
    """Return the first character of a key or a value if it is one of `_LOOKALIKES`, or the last one; else None.

    Typographic quotes are accepted within a text, but not around it.
    """
    first, last = text[:1], text[-1:]
    if any("quote" in _LOOKALIKES.get(each, "") for each in (first, last)):
        return first if first in _LOOKALIKES and last in _LOOKALIKES else None
    return next((each for each in (first, last) if each in _LOOKALIKES), None)


def _tag_of(loader: Any, text: str) -> str:
    return str(loader.resolve(yaml.ScalarNode, text, (True, False)))


def scalar(text: str) -> Any:
    """Return the value that YAML reads from an unquoted `text`: a number, a Boolean, null, or the text itself."""
    text = str(text)  # no subclass
    loader = _Loader(b"")
    node = yaml.ScalarNode(_tag_of(loader, text), text)
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError):
        return text


class _Loader(yaml.SafeLoader):
    """Rejects files that exceed the limits, and mappings with a key twice, for which YAML silently uses the last value."""

    def __init__(self, stream: bytes, variables: Mapping[str, str] | None = None) -> None:
        super().__init__(stream)
        self._variables = variables
        self._values = 0
        self._depth = 0
        self._expanded_characters = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        self._depth += 1
        if self._values > MOST_VALUES:
            raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} keys and values")
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {DEEPEST} levels")
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.ScalarEvent) and event.style is None and (odd := _odd_end(event.value)) is not None:
            line = getattr(event.start_mark, "line", 0) + 1
            raise yaml.YAMLError(f"line {line}: {event.value!r} has a {_named(odd)}")
        try:
            node = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        if (
            self._variables is not None
            and isinstance(event, yaml.ScalarEvent)
            and isinstance(node, yaml.ScalarNode)
            and not is_key
        ):
            self._expand(node, event, self._variables)
        return node

    def _expand(self, node: yaml.ScalarNode, event: yaml.ScalarEvent, variables: Mapping[str, str]) -> None:
        """Replace the references in the value of `node`. The type of a value that has some follows from its field."""
        if "$" not in node.value:
            return
        try:
            value = expand(node.value, variables)
            self._expanded_characters += len(value)
            if self._expanded_characters > MAX_CHARACTERS:
                raise VariableError(TOO_LONG)
        except VariableError as error:
            line = getattr(event.start_mark, "line", 0) + 1
            raise VariableError(f"line {line}: {error}") from None
        if isinstance(value, Expanded) and event.tag is None:
            empty = not value and event.style is None
            node.tag = "tag:yaml.org,2002:null" if empty else _EXPANDED_TAG
        node.value = str(value)

    def get_single_node(self) -> yaml.Node | None:
        """Return the only document; empty ones, such as one after a ``---`` at the end, are skipped."""
        found: yaml.Node | None = None
        self.get_event()  # type: ignore[no-untyped-call]  # the begin of the stream
        while not self.check_event(yaml.StreamEndEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            node: yaml.Node | None = self.compose_document()
            if isinstance(node, yaml.ScalarNode) and not node.value and node.style is None:
                continue
            if found is not None:
                expected = "expected a single document in the stream"
                raise yaml.composer.ComposerError(expected, found.start_mark, "but found another document", mark)
            found = node
        self.get_event()  # type: ignore[no-untyped-call]
        if found is not None and _expanded(found, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} keys and values")
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _number_with_exponent(loader: _Loader, node: yaml.ScalarNode) -> float | int | str:
    text = str(loader.construct_scalar(node))
    if _COMMIT.match(text) and len(text) >= _COMMIT_CHARACTERS:
        return text
    number = float(text)
    return _whole(text, number) if math.isfinite(number) else text


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | int:
    return _whole(str(loader.construct_scalar(node)), loader.construct_yaml_float(node))


def _whole(text: str, number: float) -> float | int:
    """Return `number` as an integer if `text` is how Go writes one."""
    return int(number) if _WHOLE_OF_GO.match(text) and number.is_integer() else number


_Loader.add_implicit_resolver("!number-with-exponent", _EXPONENT, list("-+.0123456789"))
_Loader.add_constructor("!number-with-exponent", _number_with_exponent)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor(_EXPANDED_TAG, lambda _loader, node: Expanded(node.value))


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
