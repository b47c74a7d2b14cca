"""What is fuzzed: each module has SEEDS, valid inputs; TOKENS, pieces of them; and check(), which must not raise.

INSTRUMENTED are the packages towards whose code the inputs are mutated: those that read them. Each further one slows the inputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final, Protocol, cast

TARGETS: Final = ("relay", "wire", "journal", "configuration", "listing", "redaction")


class Target(Protocol):
    """A module of this folder."""

    INSTRUMENTED: Sequence[str]
    SEEDS: Sequence[bytes]
    TOKENS: Sequence[bytes]

    def check(self, data: bytes) -> None:
        """Pass `data` to the code that reads it; raise what is wrong."""


def load(name: str) -> Target:
    """Return the target `name`."""
    return cast(Target, importlib.import_module(f"tests.fuzz.targets.{name}"))
