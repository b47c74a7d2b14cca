"""The address of a model selects its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import DownloadSettings
from phasebus.initializer.downloads.sources import repository_name, source_of
from phasebus.initializer.downloads.sources.http import HttpClient

SETTINGS = DownloadSettings()


@pytest.mark.parametrize(
    ("model", "kind", "display"),
    [
        ("org/name", "hf", "hf://org/name"),
        ("org/name@refs/pr/1", "hf", "hf://org/name@refs/pr/1"),
        ("hf://org/name", "hf", "hf://org/name"),
        ("hf://org/name@v1.0", "hf", "hf://org/name@v1.0"),
        ("hf://gpt2", "hf", "hf://gpt2"),
        ("hf://gpt2@main", "hf", "hf://gpt2@main"),
        ("https://huggingface.co/org/name", "hf", "hf://org/name"),
        ("https://huggingface.co/org/name/tree/dev", "hf", "hf://org/name@dev"),
        ("huggingface.co/org/name", "hf", "hf://org/name"),
        ("hf.co/org/name/tree/dev", "hf", "hf://org/name@dev"),
        ("s3://bucket/prefix/", "s3", "s3://bucket/prefix"),
        ("gs://bucket", "gs", "gs://bucket/"),
        ("az://container/prefix", "az", "az://container/prefix"),
        ("https://host/folder/", "https", "https://host/folder/"),
        ("https://host/folder/SHA256SUMS", "https", "https://host/folder/"),
        ("https://host/a%20b.gguf", "https", "https://host/a%20b.gguf"),
        ("file:///models/a%20b", "file", "file:///models/a%20b"),
        ("/models/tiny", "file", "/models/tiny"),
        ("./org", "file", "./org"),
        ("~/org/name", "file", "~/org/name"),
    ],
)
def test_address_selects_its_source(model: str, kind: str, display: str) -> None:
    source = source_of(model, SETTINGS)
    assert (source.kind, source.display) == (kind, display)


@pytest.mark.parametrize(
    ("model", "display"),
    [("hf://org/name\n", "hf://org/name"), (" org/name\r\n", "hf://org/name"), ("s3://box/a \n", "s3://box/a ")],
)
def test_line_end_of_a_folded_value_is_no_part_of_an_address(model: str, display: str) -> None:
    assert source_of(model, SETTINGS).display == display


def test_path_that_exists_is_used_with_its_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / " odd\n").mkdir()
    assert source_of(" odd\n", SETTINGS).display == " odd\n"
    assert source_of("/models/tiny\n", SETTINGS).display == "/models/tiny"


def test_existing_folder_takes_precedence_over_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_of("org/name", SETTINGS).kind == "hf"
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert source_of("org/name", SETTINGS).kind == "file"


def test_name_that_no_file_can_have_is_a_missing_folder() -> None:
    for name in ("a" * 5000, "a\0b"):
        assert source_of(name, SETTINGS).kind == "file"
        assert repository_name(name) is None


@pytest.mark.parametrize(
    "model", ["https://user:hunter2@host/file?sig=hunter2", "https://host/file?X-Amz-Credential=hunter2&a=hunter2"]
)
def test_display_has_no_credentials_and_no_query(model: str) -> None:
    assert source_of(model, SETTINGS).display == "https://host/file"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ftp://host/x", r"installed for ftp://; .*hf://, s3://"),
        ("hf://", "hf://org/name@revision"),
        ("org/name:Q4_K_M", "one quantization of a repository.*resolve/main/FILE.gguf"),
        ("hf://a/b/c", "names no repository"),
        ("https:///path", "followed by no host"),
        ("s3:///prefix", "followed by no bucket"),
    ],
)
def test_malformed_address_is_an_error(model: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        source_of(model, SETTINGS)


@pytest.mark.parametrize(
    ("address", "requested"),
    [
        ("/v0/b/app/o/models%2Fv1%2Ftiny.gguf?alt=media", "/v0/b/app/o/models%2Fv1%2Ftiny.gguf?alt=media"),
        ("/p/a%20b%2Bc(1)%7E.gguf", "/p/a%20b%2Bc(1)%7E.gguf"),
    ],
)
def test_address_of_a_file_is_requested_as_it_is_quoted(
    address: str, requested: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def size(_: HttpClient, url: str, __: object) -> tuple[None, None]:
        sent.append(url)
        return None, None

    monkeypatch.setattr(HttpClient, "size", size)
    (file,) = source_of(f"https://host{address}", SETTINGS).listing().files
    assert sent == [f"https://host{requested}"]
    assert "/" not in file.name
    assert file.name.endswith(".gguf")


def test_endpoint_without_a_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example.org")
    with pytest.raises(DownloadError, match=r"HF_ENDPOINT is 'mirror.example.org'; it has to begin with https://"):
        source_of("hf://org/name", SETTINGS).listing()


@pytest.mark.parametrize("model", ["https://user:\udcff@host/file", "https://host/\udcff/file"])
def test_address_that_is_not_unicode_is_an_error(model: str) -> None:
    with pytest.raises(DownloadError, match="a character cannot be read"):
        source_of(model, SETTINGS)
