from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.otlp import OtlpBackend, otlp_backend


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtlpBackend]:
    """A real OTLP backend, for the whole session."""
    with otlp_backend(tmp_path_factory.mktemp("otlp")) as running:
        yield running
