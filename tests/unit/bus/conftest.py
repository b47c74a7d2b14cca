"""Every asynchronous test of the bus runs on asyncio and on trio."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("bus", max_examples=60, deadline=None)
settings.load_profile("bus")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
