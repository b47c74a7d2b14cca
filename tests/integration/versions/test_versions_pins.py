"""Installing phasebus beside a supported vLLM changes no package that is there already."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from phasebus.initializer.engines.vllm.versions import SUPPORTED
from tests.support.docs import ROOT
from tests.support.registry import ResolutionError, resolve

WEEKS_LATER = dt.timedelta(weeks=3)
"""When an image with a release is built, after the release: its other packages are as old as that."""

PLATFORM = ("--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_35")
"""What the published images of vLLM are."""


@pytest.fixture(scope="module")
def conflicts() -> Mapping[str, str]:
    """Why phasebus cannot be installed beside each supported vLLM; empty where it can. Several are resolved at once."""
    with ThreadPoolExecutor(6) as pool:
        return dict(zip(SUPPORTED, pool.map(conflict, SUPPORTED), strict=True))


def conflict(version: str) -> str:
    """Return the resolver's message where phasebus needs another version of a package that the image has."""
    built = (dt.date.fromisoformat(SUPPORTED[version]) + WEEKS_LATER).isoformat()
    image = resolve([f"vllm=={version}"], *PLATFORM, "--exclude-newer", built)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("\n".join(image))
        pins.flush()
        try:
            resolve([str(ROOT)], *PLATFORM, "--constraint", pins.name)  # into an old image, as of today
        except ResolutionError as error:
            return str(error)
    return ""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", SUPPORTED)
def test_phasebus_changes_no_pin_of_a_supported_vllm(conflicts: Mapping[str, str], version: str) -> None:
    assert conflicts[version] == ""
