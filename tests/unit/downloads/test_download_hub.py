"""The hub's errors, and the cache when it has the files. Nothing is sent."""

from __future__ import annotations

import json
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest
from huggingface_hub import constants

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.sources import hub as hub_module
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError
from phasebus.initializer.downloads.sources.hub import HubSource

COMMIT = "0123abcd" * 5


class Hub:
    """A hub that answers every request with one error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.status, self.headers = 500, Message()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(HttpClient, "read", self.read)
        monkeypatch.setenv("HF_ENDPOINT", " https://hub.example/ ")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("VLLM_USE_MODELSCOPE", raising=False)

    def read(self, *_: object) -> bytes:
        raise StatusError(self.status, self.headers, "hub.example", signed=False)

    def answers(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.headers = status, Message()
        self.headers["X-Error-Code"], self.headers["X-Error-Message"] = code, message


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    return Hub(monkeypatch, tmp_path)


def error_of(hub: Hub) -> str:
    with pytest.raises(DownloadError) as caught:
        HubSource("org/name", None, DownloadSettings()).listing()
    assert "hf_secret" not in str(caught.value)
    return str(caught.value)


def test_expired_token_is_named_as_the_cause(hub: Hub) -> None:
    hub.answers(401, message="Invalid credentials in Authorization header")
    assert "https://hub.example rejects the token that is sent for hf://org/name; it may have expired" in error_of(hub)


def test_password_of_the_endpoint_is_sent_and_not_printed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, dict[str, str]]] = []

    def read(_: HttpClient, url: str, headers: dict[str, str], __: int) -> bytes:
        sent.append((url, headers))
        raise StatusError(401, Message(), "hub.example", signed=False)

    monkeypatch.setattr(HttpClient, "read", read)
    monkeypatch.setenv("HF_ENDPOINT", "https://me:p%40ss@hub.example/repository/hf/")
    message = error_of(hub)
    assert message == (
        "https://hub.example/repository/hf rejects the user and password of HF_ENDPOINT for hf://org/name; correct them"
    )
    ((url, headers),) = sent
    assert url.startswith("https://hub.example/repository/hf/api/models/org/name/")
    assert [value for name, value in headers.items() if name.lower() == "authorization"] == ["Basic bWU6cEBzcw=="]


@pytest.mark.parametrize("endpoint", ["https://me:p@ss/word@hub.example", "https://me:12/34@hub.example"])
def test_endpoint_with_unquoted_characters_is_an_error_without_its_password(
    hub: Hub, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    message = error_of(hub)
    assert message.startswith("HF_ENDPOINT is malformed; write '/', '#', '?' and '@' in its password as %2F")
    assert not any(part in message for part in ("ss/w", "12", "34", "me:"))


def test_redirect_that_loses_the_token_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> bytes:
        raise StatusError(401, Message(), "hub.example", signed=True)

    monkeypatch.setattr(HttpClient, "read", read)
    assert "https://hub.example redirects to another address, which denies access to hf://org/name" in error_of(hub)


@pytest.mark.parametrize("siblings", [{}, {"siblings": []}])
def test_hub_that_lists_no_files_is_asked_for_its_tree(
    hub: Hub, siblings: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lfs = {"oid": "b" * 64, "size": 3}
    pages = {
        "recursive=true": ([{"type": "file", "path": "a.bin", "size": 3, "oid": "a" * 40, "lfs": lfs}], "cursor=2"),
        "cursor=2": ([{"type": "directory", "path": "sub"}, {"type": "file", "path": "sub/b", "size": 1}], None),
    }

    def read_page(client: HttpClient, url: str, *rest: object) -> tuple[bytes, str | None]:
        address, _, query = url.partition("?")
        assert address == f"https://hub.example/api/models/org/name/tree/{COMMIT}"
        entries, following = pages[query]
        return json.dumps(entries).encode(), following

    monkeypatch.setattr(HttpClient, "read", lambda *_: json.dumps({"sha": COMMIT, **siblings}).encode())
    monkeypatch.setattr(HttpClient, "read_page", read_page)
    files = HubSource("org/name", None, DownloadSettings()).listing().files
    assert [(file.name, file.size, file.digest and file.digest.value) for file in files] == [
        ("a.bin", 3, "b" * 64),
        ("sub/b", 1, None),
    ]


@pytest.mark.parametrize("token", ['"hf_secret"', "'hf_secret'"])
def test_quotes_around_the_token_are_named(hub: Hub, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils.build_hf_headers", lambda: {"authorization": f"Bearer {token}"})
    assert "the token of the hub has quotes in it" in error_of(hub)


def test_missing_token_is_named_as_the_cause(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils.build_hf_headers", dict)
    hub.answers(401)
    assert "there is no repository 'org/name' on https://hub.example, or it is private" in error_of(hub)


@pytest.mark.parametrize(("status", "code"), [(403, "GatedRepo"), (403, "")])
def test_statement_of_the_hub_is_a_part_of_the_error(hub: Hub, status: int, code: str) -> None:
    hub.answers(status, code, "Enable access in your fine-grained token " + "x" * 1000)
    error = error_of(hub)
    assert error.startswith("hf://org/name is a gated repository" if code else "hub.example denies access (HTTP 403)")
    assert ". The hub: 'Enable access in your fine-grained token xxx" in error
    assert len(error) < 600


def test_cache_of_a_user_without_a_home_is_no_folder_called_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    monkeypatch.setattr(Path, "expanduser", fail)
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path))
    assert hub_module._cache() == tmp_path / "huggingface" / "hub"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot in the cache."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_snapshot_in_the_cache_is_used_if_the_token_is_rejected(
    hub: Hub, snapshot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.answers(401)
    assert HubSource("org/name", None, DownloadSettings()).listing().folder == snapshot
    assert "; using hf://org/name from the cache" in caplog.text


@pytest.mark.usefixtures("snapshot")
@pytest.mark.parametrize(
    ("status", "code"), [(403, "GatedRepo"), (404, "RepoNotFound"), (403, ""), (404, "RevisionNotFound")]
)
def test_snapshot_in_the_cache_is_not_used_if_access_is_denied(hub: Hub, status: int, code: str) -> None:
    hub.answers(status, code)
    assert error_of(hub)


def test_token_that_is_no_token_is_an_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "\ufeffhf_secret")
    assert "correct HF_TOKEN or the file of HF_TOKEN_PATH" in error_of(hub)


def test_commits_in_the_cache_are_named_where_the_hub_is_offline_and_the_branch_is_unknown(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert error_of(hub).endswith("unset it, or fill the cache")
    (tmp_path / "models--org--name" / "snapshots" / COMMIT).mkdir(parents=True)
    assert error_of(hub).endswith(f"fill the cache. It has hf://org/name@{COMMIT}")


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"HF_HUB_ETAG_TIMEOUT": "10s"}, "HF_HUB_ETAG_TIMEOUT is '10s': set whole numbers of seconds"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": ""}, "HF_HUB_DOWNLOAD_TIMEOUT is '': set whole numbers of seconds"),
        ({}, "Correct the HF_ variables"),
    ],
)
def test_variable_that_the_library_of_the_hub_rejects_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], advice: str
) -> None:
    class Rejecting(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ValueError("invalid literal")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Rejecting("huggingface_hub"))
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert error_of(hub).endswith(f"cannot be imported: invalid literal. {advice}")
