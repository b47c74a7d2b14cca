"""The download sources, one module each; `source_of` selects one by the scheme of the address."""

from __future__ import annotations

import os
import re
from pathlib import Path

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.protocol import Source
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.local import LocalSource
from phasebus.initializer.downloads.sources.registry import source_factory

_HUB_PAGES = ("huggingface.co/", "hf.co/")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)


def source_of(model: str, settings: DownloadSettings) -> Source:
    """Return the source that `model` names, without connecting to it.

    The scheme of an address selects one of the installed sources. Without a scheme, an existing path is a path, and so is
    everything that begins with ``/``, ``./``, ``../`` or ``~``; otherwise ``org/name`` is a repository of the hub.

    Raises:
        DownloadError: No source is installed for the scheme, or the address is malformed.
    """
    model = _without_line_end(model)
    if (matched := _SCHEME.fullmatch(model)) is not None:
        return source_factory(matched["scheme"].lower())(model, settings)
    path = Path(model).expanduser()
    looks_like_a_path = model.startswith((os.sep, "./", "../", "~")) or model in {"", ".", ".."}
    if not looks_like_a_path and not os.path.exists(path):
        from phasebus.initializer.downloads.sources.hub import REPOSITORY, guessed_hub_source

        if (matched := REPOSITORY.fullmatch(model)) is not None:
            return guessed_hub_source(matched, settings)
        if model.lower().startswith(_HUB_PAGES):
            return source_factory("https")(f"https://{model}", settings)
        repository, _, quantization = model.rpartition(":")
        if quantization and REPOSITORY.fullmatch(repository) is not None:
            raise DownloadError(
                f"{model!r} names one quantization of a repository, which phasebus does not select: give the address of its "
                f"file, https://huggingface.co/{repository}/resolve/main/FILE.gguf, or leave the download to the engine "
                "(local_node_download_model: NONE)"
            )
    return LocalSource(model, path)


def repository_name(model: str) -> str | None:
    """Return the ``org/name`` of a repository of the hub, without scheme and revision; None for any other model."""
    from phasebus.initializer.downloads.sources.hub import REPOSITORY

    scheme, separator, rest = _without_line_end(model).rpartition("://")
    if (separator and scheme.lower() != "hf") or (not separator and os.path.exists(model)):
        return None
    repository = REPOSITORY.fullmatch(rest.rstrip("/"))
    return None if repository is None else repository["repo"]


def _without_line_end(model: str) -> str:
    """Return an address without spaces before it and line ends behind it, as a folded value of YAML or a secret has them.

    A path that exists stays as it is.
    """
    return model if os.path.lexists(model) else model.lstrip().rstrip("\r\n")
