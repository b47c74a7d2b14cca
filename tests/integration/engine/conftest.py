from __future__ import annotations

import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model


@pytest.fixture(scope="session")
def tiny_model() -> str:
    """The folder of the tiny model."""
    return str(write_tiny_model(tiny_model_path()))
