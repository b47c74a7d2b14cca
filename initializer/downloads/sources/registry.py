"""The installed sources, by scheme: the built-in ones and those that packages add by entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.protocol import SourceFactory

GROUP: Final = "phasebus.sources"
"""The entry point group of sources."""

_SOURCES: Final = "phasebus.initializer.downloads.sources"

BUILT_IN: Final = {
    "hf": f"{_SOURCES}.hub:hub_source",
    "s3": f"{_SOURCES}.objects:object_source",
    "gs": f"{_SOURCES}.objects:object_source",
    "az": f"{_SOURCES}.objects:object_source",
    "https": f"{_SOURCES}.web:web_source",
    "http": f"{_SOURCES}.web:web_source",
    "file": f"{_SOURCES}.local:local_source",
}
"""The entry points of phasebus itself. They are repeated here because phasebus may be shipped without its metadata (Ray's
``py_modules``), and because reading the metadata of all installed distributions takes tens of milliseconds."""


def source_factory(scheme: str) -> SourceFactory:
    """Return the factory of the source that is installed for `scheme`.

    Raises:
        DownloadError: None is installed, several are, or it cannot be imported.
    """
    entry = _built_in(scheme) or _installed().get(scheme)
    if entry is None:
        raise DownloadError(
            f"no source is installed for {scheme}://; there are {', '.join(f'{name}://' for name in installed_schemes())}, "
            f"and a package may add one by an entry point in the group {GROUP}"
        )
    try:
        factory: SourceFactory = entry.load()
    except Exception as error:
        raise DownloadError(
            f"the source for {scheme}:// cannot be imported from {entry.value!r}: {type(error).__name__}: {error}"
        ) from error
    return factory


def installed_schemes() -> list[str]:
    """Return the schemes of the installed sources, the built-in ones first."""
    return [*BUILT_IN, *sorted(set(_installed()) - set(BUILT_IN))]


def _built_in(scheme: str) -> EntryPoint | None:
    return EntryPoint(scheme, BUILT_IN[scheme], GROUP) if scheme in BUILT_IN else None


@cache
def _installed() -> dict[str, EntryPoint]:
    """Return the entry points of other packages by scheme; built-in schemes cannot be replaced."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        scheme = entry.name.lower()
        if scheme in BUILT_IN:
            continue
        if scheme in found and found[scheme].value != entry.value:
            raise DownloadError(
                f"two packages install a source for {scheme}://: {found[scheme].value!r} and {entry.value!r}; "
                "uninstall one"
            )
        found[scheme] = entry
    return found
