"""``hf://org/name@revision``: the Hugging Face hub, or whatever HF_ENDPOINT says is one.

`huggingface_hub` is asked what there is; the bytes come through `HttpClient`, whose progress, resuming and checking are
the same for every server. Files go where `huggingface_hub` would put them (HF_HOME, HF_HUB_CACHE), so what it fetched
is found here, and what is fetched here is found by it, by transformers and by vLLM.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.http import HttpBody, HttpClient, refusal
from phasebus.initializer.downloads.sources.protocol import Listing, RemoteFile

_COMMIT = re.compile(r"[0-9a-f]{40}")

REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
"""How a repository is written: ``org/name`` or ``org/name@revision``."""


def hub_source(model: str, settings: DownloadSettings) -> HubSource:
    """Return the source of ``hf://org/name`` or ``hf://org/name@revision``."""
    if (repository := REPOSITORY.fullmatch(model.partition("://")[2].rstrip("/"))) is None:
        raise DownloadError(f"{model!r} names no repository; write hf://org/name or hf://org/name@revision")
    return HubSource(repository["repo"], repository["revision"], settings)


def guessed_hub_source(repository: re.Match[str], settings: DownloadSettings) -> HubSource:
    """Return the source of a match of `REPOSITORY` without a scheme, which may have meant a folder."""
    return HubSource(repository["repo"], repository["revision"], settings, guessed_from=repository.string)


class HubSource:
    """A model's repository on the hub.

    Args:
        repo: ``org/name``.
        revision: A branch, a tag or a commit.
        settings: How to fetch.
        guessed_from: The value this was taken for a repository from, if it could have meant a folder.
    """

    kind: str = "hf"

    def __init__(
        self, repo: str, revision: str | None, settings: DownloadSettings, guessed_from: str | None = None
    ) -> None:
        self._repo = repo
        self._revision = revision or "main"
        self._commit = self._revision
        self._address = ""
        self._headers: dict[str, str] = {}
        self._guessed_from = guessed_from
        self._client = HttpClient(settings)
        self._timeout = settings.stall_seconds
        self.display = f"hf://{repo}" + ("" if revision is None else f"@{revision}")

    def listing(self) -> Listing:
        """Return the files of the revision, with their sizes and what they hash to."""
        from huggingface_hub import HfApi, constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented there

        api = HfApi(endpoint=_endpoint())
        try:
            info = api.model_info(self._repo, revision=self._revision, files_metadata=True, timeout=self._timeout)
        except Exception as error:  # noqa: BLE001  # the client raises those of two HTTP libraries, and its own
            raise self._failure(error) from None
        self._commit = info.sha or self._revision
        self._address = hf_hub_url(self._repo, "/", revision=self._commit, endpoint=_endpoint()).rstrip("/")
        self._headers = build_hf_headers()
        folder = Path(constants.HF_HUB_CACHE).expanduser() / f"models--{self._repo.replace('/', '--')}"
        refs = {} if _COMMIT.fullmatch(self._revision) else {folder / "refs" / self._revision: self._commit}
        files = [
            RemoteFile(
                name=each.rfilename,
                size=each.size if each.lfs is None else each.lfs.size,
                digest=_digest(each),
                validator=each.blob_id,
            )
            for each in info.siblings or ()
        ]
        return Listing(
            files=tuple(without_duplicate_weights(files)),
            folder=folder / "snapshots" / self._commit,
            revision=self._commit,
            refs=refs,
        )

    def open(self, file: RemoteFile, start: int, validator: str | None) -> HttpBody:
        """Ask the hub for a file; it mostly leads on to a content delivery network, which never sees the token."""
        return self._client.open(f"{self._address}/{quote(file.name)}", self._headers, start, validator)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _failure(self, error: Exception) -> Exception:
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if isinstance(error, OfflineModeIsEnabled):
            return DownloadError(f"{self.display} cannot be fetched: HF_HUB_OFFLINE is set; unset it")
        if isinstance(error, GatedRepoError):
            return DownloadError(
                f"{self.display} is a gated repository; accept its terms on the hub's page, and set HF_TOKEN to a token "
                "of that account"
            )
        if isinstance(error, RepositoryNotFoundError):
            folder = self._guessed_from and f", nor is there a folder {Path(self._guessed_from).absolute()}"
            return DownloadError(
                f"there is no repository {self._repo!r} on {_endpoint()}{folder or ''}, or it is private: check the name, or set "
                "HF_TOKEN to a token that may read it"
            )
        if isinstance(error, RevisionNotFoundError):
            return DownloadError(f"{self._repo!r} has no revision {self._revision!r}; name a branch, a tag or a commit")
        if isinstance(error, HFValidationError):
            return DownloadError(f"{self._repo!r} is no repository name of the hub: {error}")
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            return refusal(error.response.status_code, error.response.headers.get("Retry-After"), _endpoint())
        return TransferError(f"{_endpoint()} cannot be reached ({type(error).__name__})")


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _digest(sibling: Any) -> Digest | None:
    if sibling.lfs is not None:
        return Digest("sha256", sibling.lfs.sha256)
    return Digest("git-sha1", sibling.blob_id) if sibling.blob_id else None


_OTHER_FORMATS = (
    "original/*",
    "onnx/*",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "tf_model*.h5",
    "flax_model*.msgpack",
    "model.ckpt*",
    "rust_model.ot",
)
"""The same weights once more, for other frameworks, as repositories of the hub carry them beside safetensors."""


def without_duplicate_weights(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return `files` without the weights in other formats, if there are safetensors to use in their place."""
    files = list(files)
    if not any(file.name.endswith(".safetensors") and "/" not in file.name for file in files):
        return files
    return [file for file in files if not any(fnmatch.fnmatchcase(file.name, each) for each in _OTHER_FORMATS)]
