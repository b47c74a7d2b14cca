"""Sources are found by the scheme of an address, the built-in ones as well as those of other packages."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import DownloadSettings, fetch, installed_schemes
from phasebus.initializer.downloads.sources import registry, source_of
from phasebus.initializer.downloads.sources.registry import BUILT_IN, GROUP
from tests.support.docs import blocks
from tests.support.downloads import QUICK, tree, watched
from tests.support.programs import ROOT

SETTINGS = DownloadSettings()

MODULE = blocks("docs/guides/downloads.md", "python")[-1]
"""The package of the documentation."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, without any yet."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path / "cache"))
    registry._installed.cache_clear()
    yield tmp_path / "site"
    registry._installed.cache_clear()
    sys.modules.pop("company_models", None)


def install(site: Path, name: str, entries: str, module: str | None = None) -> None:
    """Do what an installer does with a package that has entry points for sources."""
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}\n")
    if module is not None:
        (site / f"{name}.py").write_text(module)


def test_built_in_schemes_are_the_entry_points_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared[GROUP] == BUILT_IN


@pytest.mark.anyio
async def test_model_of_an_installed_source_is_downloaded(site: Path) -> None:
    install(site, "company_models", "models = company_models:models_source", MODULE)
    async with watched() as seen:
        result = await fetch(seen.bus, "models://team/name", settings=QUICK)
    assert result is not None
    assert tree(result.path) == {"config.json": b"{}", "model.bin": bytes(1000)}
    assert {event.attributes["source"] for event in seen.events} == {"models"}
    assert "models" in installed_schemes()


def test_unknown_scheme_names_the_installed_ones(site: Path) -> None:
    install(site, "company_models", "models = company_models:models_source", MODULE)
    with pytest.raises(
        DownloadError, match=r"no source is installed for ftp://; .*hf://.*, models://, .*phasebus.sources"
    ):
        source_of("ftp://host/model", SETTINGS)


def test_source_that_cannot_be_imported_is_named(site: Path) -> None:
    install(site, "company_models", "models = company_models:models_source", "import nowhere_to_be_found")
    with pytest.raises(DownloadError, match=r"source for models:// cannot be imported.*nowhere_to_be_found"):
        source_of("models://team/name", SETTINGS)


def test_two_packages_with_one_scheme_are_an_error(site: Path) -> None:
    install(site, "company_models", "models = company_models:models_source", MODULE)
    install(site, "other_models", "models = other_models:models_source")
    with pytest.raises(DownloadError, match="two packages install a source for models://"):
        source_of("models://team/name", SETTINGS)


def test_built_in_scheme_is_not_replaced_by_a_package(site: Path) -> None:
    install(site, "company_models", "s3 = company_models:models_source", MODULE)
    assert source_of("s3://bucket/prefix", SETTINGS).kind == "s3"
