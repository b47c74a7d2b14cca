"""Span and trace ids from the system's randomness.

OpenTelemetry draws ids from Python's `random`, which vLLM seeds with the model's seed in every worker: without this, all
workers of all engines have the same span ids. Read from vLLM 0.32 (`vllm/tracing/otel.py`) and OpenTelemetry 1.45.
"""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

import wrapt
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

VLLM_TRACING = "vllm.tracing.otel"
"""The module of vLLM that makes its tracer providers."""


class SystemIdGenerator(IdGenerator):
    """Draws ids that no seed, fork or restored snapshot of a process repeats."""

    def generate_span_id(self) -> int:
        """Return a 64-bit id that is not zero."""
        return _random_bits(8)

    def generate_trace_id(self) -> int:
        """Return a 128-bit id that is not zero."""
        return _random_bits(16)

    def is_trace_id_random(self) -> bool:
        """Return True: all bits are random."""
        return True


def use_system_ids(provider: TracerProvider) -> None:
    """Replace the id generator of `provider`, unless it is one that the user chose."""
    if type(provider.id_generator) is RandomIdGenerator:
        provider.id_generator = SystemIdGenerator()  # type: ignore[assignment]  # it is typed as what the SDK makes itself


def use_system_ids_in_vllm() -> None:
    """Let every tracer provider that vLLM makes from now on draw its ids from the system's randomness."""
    wrapt.register_post_import_hook(_replace_provider, VLLM_TRACING)


def _replace_provider(module: ModuleType) -> None:
    make = vars(module).get("TracerProvider")
    if make is None:
        return

    @functools.wraps(make, updated=())
    def make_provider(*args: Any, **kwargs: Any) -> Any:
        provider = make(*args, **kwargs)
        use_system_ids(provider)
        return provider

    setattr(module, "TracerProvider", make_provider)  # noqa: B010  # a module has no such attribute to a type checker


def _random_bits(size: int) -> int:
    while not (number := int.from_bytes(os.urandom(size), "big")):
        pass
    return number
