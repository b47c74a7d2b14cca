from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

RAYS_VLLM = "0.29.0"
"""The release of vLLM that Ray 2.60 pins, the second one that is started for real."""


@pytest.mark.timeout(1800)
def test_the_vllm_that_ray_pins_starts_and_answers_under_run() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    tests = subprocess.run(
        [ROOT / "deploy" / "environment" / "other-engine", RAYS_VLLM],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout[-20_000:] + tests.stderr[-5_000:]
    assert " passed" in tests.stdout
