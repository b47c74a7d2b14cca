"""The pytest plugin: the fixture ``recording_bus``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from phasebus.bus.testing import RecordingBus


@pytest.fixture
def recording_bus() -> RecordingBus:
    """Return a bus that records everything; observers need it open: ``async with recording_bus``."""
    from phasebus.bus.testing import RecordingBus

    return RecordingBus()
