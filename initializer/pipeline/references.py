"""References to environment variables in the values of a configuration: ``${NAME}`` and ``${NAME:-default}``.

``$$`` stands for ``$``. A ``$`` that begins neither form stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from phasebus.telemetry.redaction import is_secret_name, learn_secret

_REFERENCE: Final = re.compile(
    r"(?P<escaped>\$\$)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}$]*))?\}|(?P<malformed>[^}]*\}?))"
)


MAX_CHARACTERS: Final = 1_000_000
"""Maximum length of a value, and of all values of a file together, with the references replaced."""


TOO_LONG: Final = f"the values of the variables that it refers to have more than {MAX_CHARACTERS:,} characters"


class VariableError(ValueError):
    """Raised for a reference to a variable that is not set and has no default, or that is malformed."""


class Expanded(str):
    """A text in which references were replaced. A field without a type of its own reads it as a YAML value."""

    __slots__ = ()


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with its references replaced: an `Expanded` if it had any.

    The default replaces a variable that is not set or empty. The value of a variable with the name of a secret is masked
    from now on wherever it appears.

    Args:
        text: A value of a configuration.
        variables: The variables by name.

    Raises:
        VariableError: A variable is not set and has no default, a reference is malformed, or the result is too long.
    """
    expanded, added = False, 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal expanded, added
        if match["escaped"]:
            return "$"
        if match["malformed"] is not None:
            raise VariableError(
                f"{match[0]!r} is no reference to a variable; write ${{NAME}} or ${{NAME:-default}}, or $${{ for ${{"
            )
        expanded = True
        name, default = match["name"], match["default"]
        value = variables.get(name)
        if default is not None and not value:
            return default
        if value is None:
            raise VariableError(f"the variable {name} is not set; set it, or write a default: ${{{name}:-default}}")
        added += len(value)
        if added > MAX_CHARACTERS:
            raise VariableError(TOO_LONG)
        if is_secret_name(name):
            learn_secret(value)
        return value

    result = _REFERENCE.sub(replacement, text)
    return Expanded(result) if expanded else result
