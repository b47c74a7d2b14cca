"""What the exporters of the installed OpenTelemetry can do: an image keeps the version that its vLLM has."""

from __future__ import annotations

from importlib.metadata import version

import pytest

INSTALLED = tuple(int(part) for part in version("opentelemetry-sdk").split(".")[:2])


def exports_since(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test with an older OpenTelemetry, whose exporters do not do `what`."""
    return pytest.mark.skipif((major, minor) > INSTALLED, reason=f"OpenTelemetry {major}.{minor} and later {what}")
