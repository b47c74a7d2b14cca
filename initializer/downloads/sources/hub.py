"""``hf://org/name@revision``: the Hugging Face hub, or the server that HF_ENDPOINT names.

`huggingface_hub` provides the path of its cache and its token. `HttpClient` requests the listing and the files, with the
same time limits, progress, resuming and checks as for every server. Files are stored in the cache of `huggingface_hub`
(HF_HOME, HF_HUB_CACHE), so phasebus finds its downloads, and it, transformers and vLLM find the downloads of phasebus. If the
hub is offline or cannot be reached, a snapshot in the cache is used.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from phasebus.initializer.downloads.errors import DownloadError, TransferError, UnavailableError
from phasebus.initializer.downloads.names import is_remote_name
from phasebus.initializer.downloads.paths import expanded
from phasebus.initializer.downloads.protocol import Listing, RemoteFile
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.bodies import HttpBody
from phasebus.initializer.downloads.sources.headers import basic_credentials
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError, error_of_status
from phasebus.initializer.downloads.sources.hub_cache import (
    cached_commits,
    cached_snapshot,
    other_snapshots,
    refs_of,
    snapshot_folder,
)
from phasebus.initializer.downloads.sources.hub_listing import (
    HubRepository,
    read_repository,
    read_tree,
    without_duplicate_weights,
)
from phasebus.telemetry.folders import cache_folder
from phasebus.telemetry.redaction import redact

logger = logging.getLogger("phasebus.downloads")

REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
"""The form of a repository: ``org/name`` or ``org/name@revision``."""

_ADDRESS = re.compile(r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
"""The form of a repository behind ``hf://``; the oldest ones, such as ``gpt2``, are known without their organization, too."""

_REPO_PART = re.compile(r"(?![.-])(?!.*(--|\.\.))[A-Za-z0-9._-]{1,96}(?<![.-])")
_MAX_LISTING = 128 * 2**20
_MODELSCOPE = "VLLM_USE_MODELSCOPE"
_WHOLE_NUMBERS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
_MOST_COMMITS = 3
_MOST_PAGES = 1000


def hub_source(model: str, settings: DownloadSettings) -> HubSource:
    """Return the source of ``hf://org/name`` or ``hf://org/name@revision``."""
    if (repository := _ADDRESS.fullmatch(model.partition("://")[2].rstrip("/"))) is None:
        raise DownloadError(f"{model!r} names no repository; write hf://org/name or hf://org/name@revision")
    return HubSource(repository["repo"], repository["revision"], settings)


def guessed_hub_source(repository: re.Match[str], settings: DownloadSettings) -> HubSource:
    """Return the source for a match of `REPOSITORY` without a scheme; the user may have meant a folder."""
    return HubSource(repository["repo"], repository["revision"], settings, guessed_from=repository.string)


class _RejectedTokenError(DownloadError):
    """Raised when the hub rejects the token, also for a public repository; the cache may have its files."""


class HubSource:
    """The repository of a model on the hub.

    Args:
        repo: ``org/name``.
        revision: A branch, a tag or a commit.
        settings: The limits.
        guessed_from: The original value, if it has no scheme and could have meant a folder; else None.
    """

    kind = "hf"

    def __init__(
        self, repo: str, revision: str | None, settings: DownloadSettings, guessed_from: str | None = None
    ) -> None:
        if not all(_REPO_PART.fullmatch(part) for part in repo.split("/")):
            raise DownloadError(f"{repo!r} is not a valid repository name of the hub; write org/name")
        if revision is not None and not is_remote_name(revision):
            raise DownloadError(f"{revision!r} is not a valid revision; name a branch, a tag or a commit")
        self._repo = repo
        self._revision = revision or "main"
        self._address = ""
        self._headers: Mapping[str, str] = {}
        self._guessed_from = guessed_from
        self._client = HttpClient(settings)
        self.display = f"hf://{repo}" + ("" if revision is None else f"@{revision}")

    def listing(self) -> Listing:
        """Return the files of the revision with sizes and digests, or a snapshot in the cache."""
        constants = _constants()
        if self._guessed_from and os.environ.get(_MODELSCOPE, "").strip().lower() in {"1", "true"}:
            raise DownloadError(
                f"{_MODELSCOPE} is set, and {self._repo} would be a model of ModelScope, which phasebus does not download; "
                f"unset it, write hf://{self._repo}, name a folder, or leave the download to the engine "
                "(local_node_download_model: NONE)"
            )
        cache = _cache()
        if constants.HF_HUB_OFFLINE:
            if (cached := cached_snapshot(cache, self._repo, self._revision)) is not None:
                return cached
            raise UnavailableError(
                f"{self.display} is not in the cache {cache}, and {_offline_variable()} is set; unset it, or fill the cache"
                f"{self._cached_commits(cache)}"
            )
        try:
            repository = self._ask()
        except (TransferError, _RejectedTokenError) as error:
            if (cached := cached_snapshot(cache, self._repo, self._revision)) is None:
                raise
            logger.warning("%s; using %s from the cache %s", error, self.display, cached.folder)
            return cached
        self._address = f"{_endpoint()[0]}/{self._repo}/resolve/{repository.commit}"
        return Listing(
            files=tuple(without_duplicate_weights(repository.files)),
            folder=snapshot_folder(cache, self._repo, repository.commit),
            revision=repository.commit,
            refs=refs_of(cache, self._repo, self._revision, repository.commit),
            earlier=other_snapshots(cache, self._repo, repository.commit),
        )

    def open(self, file: RemoteFile, start: int, validator: str | None) -> HttpBody:
        """Request a file from the hub. The hub usually redirects to a content delivery network, which gets no token."""
        return self._client.open(f"{self._address}/{quote(file.name)}", self._headers, start, validator)

    def close(self) -> None:
        """Abort running requests and close the connections."""
        self._client.close()

    def _cached_commits(self, cache: Path) -> str:
        """Return which commits the cache has instead, as the end of a message; empty if it has none."""
        found = cached_commits(cache, self._repo)[:_MOST_COMMITS]
        return f". It has {' and '.join(f'hf://{self._repo}@{commit}' for commit in found)}" if found else ""

    def _ask(self) -> HubRepository:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, but not exported

        try:
            self._headers = build_hf_headers()
        except OSError as error:
            raise DownloadError(
                f"the token of the hub cannot be read ({error}); correct HF_HOME or HF_TOKEN_PATH, or set HF_TOKEN"
            ) from None
        credential = next((value for name, value in self._headers.items() if name.lower() == "authorization"), "")
        if set("\"'") & set(credential):
            raise DownloadError(
                "the token of the hub has quotes in it, which a file of variables for a container does not remove; write "
                "HF_TOKEN without them"
            )
        if not all(value.isascii() and value.isprintable() for value in self._headers.values()):
            raise DownloadError(
                "the token of the hub has characters that no token has; correct HF_TOKEN or the file of HF_TOKEN_PATH"
            )
        endpoint, password = _endpoint()
        if password:
            self._headers = {
                **{name: value for name, value in self._headers.items() if name.lower() != "authorization"},
                **password,
            }
        url = f"{endpoint}/api/models/{self._repo}/revision/{quote(self._revision, safe='')}?blobs=true"
        try:
            content = self._client.read(url, self._headers, _MAX_LISTING)
        except StatusError as error:
            raise self._error_of(error) from None
        repository = read_repository(content, self.display)
        return repository if repository.files else HubRepository(repository.commit, self._tree(repository.commit))

    def _tree(self, commit: str) -> tuple[RemoteFile, ...]:
        """Return the files of a commit from the hub's tree, page by page; none if the hub has no such list."""
        address, query = f"{_endpoint()[0]}/api/models/{self._repo}/tree/{commit}", "recursive=true"
        files: list[RemoteFile] = []
        with suppress(StatusError):
            for _ in range(_MOST_PAGES):
                content, following = self._client.read_page(f"{address}?{query}", self._headers, _MAX_LISTING)
                files += read_tree(content, self.display)
                if following is None:
                    break
                query = following
        return tuple(files)

    def _error_of(self, error: StatusError) -> Exception:
        """Return the error to raise for a status; the header X-Error-Code names the cause."""
        code = error.headers.get("X-Error-Code", "")
        stated = _statement(error.headers)
        if code == "GatedRepo":
            return DownloadError(
                f"{self.display} is a gated repository; accept its terms on the hub's page, and set HF_TOKEN to a token "
                f"of that account{stated}"
            )
        if not code and error.status == 401 and any(name.lower() == "authorization" for name in self._headers):
            return _RejectedTokenError(f"{self._rejection(error)}{stated}")
        if code == "RevisionNotFound":
            return DownloadError(f"{self._repo!r} has no revision {self._revision!r}; name a branch, a tag or a commit")
        if code == "DisabledRepo":
            return DownloadError(f"{self.display} was disabled on the hub")
        if code == "RepoNotFound" or (not code and error.status in {401, 404}):
            folder = self._guessed_from and f", nor is there a folder {Path(self._guessed_from).absolute()}"
            return DownloadError(
                f"there is no repository {self._repo!r} on {_endpoint()[0]}{folder or ''}, or it is private: check the name, or "
                "set HF_TOKEN to a token that may read it"
            )
        other = error_of_status(error)
        return DownloadError(f"{other}{stated}") if isinstance(other, DownloadError) else other

    def _rejection(self, error: StatusError) -> str:
        """Return a message about credentials that the hub rejects, or that a redirect of it does not get."""
        endpoint, password = _endpoint()
        if error.signed:
            return (
                f"{endpoint} redirects to another address, which denies access to {self.display}, and to which no token is "
                "sent; name that address in HF_ENDPOINT"
            )
        if password:
            return f"{endpoint} rejects the user and password of HF_ENDPOINT for {self.display}; correct them"
        return (
            f"{endpoint} rejects the token that is sent for {self.display}; it may have expired: set HF_TOKEN to another one, "
            "or remove it if the repository is public"
        )


def _statement(headers: Message) -> str:
    """Return what the hub states about an error, as the end of a message; empty if it states nothing."""
    stated = redact(headers.get("X-Error-Message", "").strip())[:300]
    return stated and f". The hub: {stated!r}"


def _constants() -> Any:
    """Return the constants of `huggingface_hub`, which reads variables when it is imported.

    Raises:
        DownloadError: It rejects a variable, as it would in the engine.
    """
    try:
        from huggingface_hub import constants
    except ValueError as error:
        rejected = [f"{name} is {os.environ[name]!r}" for name in _WHOLE_NUMBERS if not _is_whole(os.environ.get(name))]
        raise DownloadError(
            f"huggingface_hub, which vLLM uses as well, cannot be imported: {error}. "
            + (f"{', '.join(rejected)}: set whole numbers of seconds" if rejected else "Correct the HF_ variables")
        ) from None
    return constants


def _cache() -> Path:
    """Return the folder of the hub's cache. Without a home, it is below that of phasebus, and not in a folder called "~"."""
    cache = expanded(Path(_constants().HF_HUB_CACHE))
    return cache_folder() / "huggingface" / "hub" if cache.parts[:1] == ("~",) else cache


def _is_whole(value: str | None) -> bool:
    try:
        return value is None or int(value) >= 0
    except ValueError:
        return False


def _offline_variable() -> str:
    """Return the variable that forbids requests; `huggingface_hub` reads both."""
    other = "TRANSFORMERS_OFFLINE"
    return other if other in os.environ and "HF_HUB_OFFLINE" not in os.environ else "HF_HUB_OFFLINE"


def _endpoint() -> tuple[str, Mapping[str, str]]:
    """Return the address of the hub without a user and password, and the header with those; none without them."""
    constants = _constants()
    endpoint: str = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).strip()
    if not endpoint.lower().startswith(("http://", "https://")):
        raise DownloadError(f"HF_ENDPOINT is {redact(endpoint)!r}; it has to begin with https:// or http://")
    try:
        parts = urlsplit(endpoint.rstrip("/"))
        is_cut = "@" in f"{parts.path}{parts.query}{parts.fragment}" or parts.port == 0
    except ValueError:
        is_cut = True
    if is_cut:
        raise DownloadError(
            "HF_ENDPOINT is malformed; write '/', '#', '?' and '@' in its password as %2F, %23, %3F and %40"
        )
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), basic_credentials(parts)
