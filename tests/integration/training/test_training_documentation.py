"""The example of the page on training, data and HTTP, with a real Ray Train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docs import blocks, run_example

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("default"),  # those of Ray Train's own code
]


async def test_the_example_of_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("ray.train.constants.DEFAULT_STORAGE_PATH", str(tmp_path / "results"))
    await run_example(blocks("docs/guides/training-data-http.md", "python")[0])
