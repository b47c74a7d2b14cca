"""Where models come from: one field, told apart by how it is written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.local import LocalSource
from phasebus.initializer.downloads.sources.protocol import Source
from phasebus.initializer.downloads.sources.stores import StoreKind
from phasebus.telemetry.redaction import redact

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_HUB_PAGE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+?)(?:/tree/(?P<revision>[\w./%-]+?))?/?")
_HUB_HOSTS = {"huggingface.co", "hf.co"}


def source_of(model: str, settings: DownloadSettings) -> Source:
    """Return the source that `model` names.

    A path that exists is that path, and so is whatever begins with ``/``, ``./``, ``../`` or ``~``; else ``org/name`` is
    a repository of the hub, and so is the address of one's page. Everything else names its scheme.

    Raises:
        DownloadError: It can be read as none of these.
    """
    if (matched := _SCHEME.fullmatch(model)) is None:
        return _without_scheme(model, settings)
    scheme, rest = matched["scheme"].lower(), matched["rest"]
    if scheme == "file":
        return LocalSource(model, Path(unquote(urlsplit(model).path)))
    if scheme == "hf":
        if (repository := _REPOSITORY.fullmatch(rest.rstrip("/"))) is None:
            raise DownloadError(f"{model!r} names no repository; write hf://org/name or hf://org/name@revision")
        return _hub(repository["repo"], repository["revision"], settings)
    if scheme in {"https", "http"}:
        parts = urlsplit(model)
        page = _HUB_PAGE.fullmatch(parts.path)
        if parts.hostname in _HUB_HOSTS and page is not None and not parts.query:
            return _hub(page["repo"], unquote(page["revision"]) if page["revision"] else None, settings)
        from phasebus.initializer.downloads.sources.web import WebSource

        return WebSource(model, settings)
    if scheme in {"s3", "gs", "az"}:
        from phasebus.initializer.downloads.sources.objects import ObjectSource

        return ObjectSource(cast("StoreKind", scheme), model, settings)
    raise DownloadError(
        f"{redact(model)!r} has the scheme {scheme}://, and models come from hf://, s3://, gs://, az://, https://, file:// "
        "or a path"
    )


def _without_scheme(model: str, settings: DownloadSettings) -> Source:
    path = Path(model).expanduser()
    looks_like_a_path = model.startswith((os.sep, "./", "../", "~")) or model in {"", ".", ".."}
    if not looks_like_a_path and not path.exists() and (repository := _REPOSITORY.fullmatch(model)) is not None:
        return _hub(repository["repo"], repository["revision"], settings, guessed_from=model)
    return LocalSource(model, path)


def _hub(repo: str, revision: str | None, settings: DownloadSettings, guessed_from: str | None = None) -> Source:
    from phasebus.initializer.downloads.sources.hub import HubSource

    return HubSource(repo, revision, settings, guessed_from=guessed_from)
