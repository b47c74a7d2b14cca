"""Object stores are configured by variables, and their errors are classified. Nothing is sent."""

from __future__ import annotations

import os
import re

import pytest

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.errors import TransferError
from phasebus.initializer.downloads.sources import source_of
from phasebus.initializer.downloads.sources.objects import ObjectSource
from phasebus.initializer.downloads.sources.stores import StoreKind, connect

KEY = "bm8gcmVhbCBrZXk="


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_")):
            monkeypatch.delenv(name)


def azure(**parts: str) -> dict[str, str]:
    """Return a connection string of Azure, as its portal writes one."""
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items()) + ";"}


@pytest.mark.parametrize(
    ("kind", "variables", "config"),
    [
        ("s3", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "HTTP://b/"}, {"endpoint": "http://b"}),
        ("s3", {"AWS_ENDPOINT_URL": "", "AWS_REGION": ""}, {"endpoint": None, "region": None}),
        (
            "gs",
            {"STORAGE_EMULATOR_HOST": "localhost:1"},
            {"base_url": "http://localhost:1", "skip_signature": "true"},
        ),
        ("az", {"AZURE_STORAGE_ACCOUNT": "us", "AZURE_STORAGE_KEY": KEY}, {"account_name": "us", "account_key": KEY}),
        ("az", {"AZURE_STORAGE_ACCOUNT": "", "AZURE_STORAGE_ACCOUNT_NAME": "us"}, {"account_name": None}),
        (
            "az",
            azure(AccountName="us", accountkey=KEY, BlobEndpoint="http://here/us/")
            | {"AZURE_STORAGE_ENDPOINT": "http://elsewhere"},
            {"account_name": "us", "account_key": KEY, "endpoint": "http://here/us"},
        ),
        (
            "az",
            azure(DefaultEndpointsProtocol="http", AccountName="us", AccountKey=KEY, EndpointSuffix="example.org"),
            {"account_name": "us", "endpoint": "http://us.blob.example.org"},
        ),
        (
            "az",
            azure(BlobEndpoint="https://us.blob.example.org/", SharedAccessSignature="sv=1&sig=2")
            | {"AZURE_STORAGE_KEY": KEY},
            {"account_name": "us", "endpoint": "https://us.blob.example.org", "account_key": None},
        ),
        ("az", azure(UseDevelopmentStorage="true"), {"use_emulator": "true"}),
    ],
)
def test_variables_configure_the_store(
    kind: StoreKind, variables: dict[str, str], config: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = connect(kind, "box", DownloadSettings(), 60).config
    assert {name: found.get(name) for name in config} == config
    assert {name: os.environ[name] for name in variables} == variables


@pytest.mark.parametrize(
    ("kind", "variables", "message"),
    [
        ("az", {}, "az://box: .*[Aa]ccount.*come from AZURE_STORAGE_CONNECTION_STRING"),
        ("az", {"AZURE_STORAGE_ACCOUNT": "us", "AZURE_STORAGE_KEY": "§"}, "[Kk]ey.*come from AZURE_STORAGE"),
        ("az", {"AZURE_STORAGE_CONNECTION_STRING": "hello"}, "AZURE_STORAGE_CONNECTION_STRING cannot be read"),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}, "/nowhere.json.*come from GOOGLE_APPLICATION"),
        ("s3", {"AWS_ENDPOINT_URL": "minio.example.org"}, "AWS_ENDPOINT_URL.* has to begin with https://"),
        ("s3", {"AWS_SKIP_SIGNATURE": "perhaps"}, "perhaps.*come from AWS_ACCESS_KEY_ID"),
    ],
)
def test_unusable_variable_is_named(
    kind: StoreKind, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DownloadError, match=message):
        connect(kind, "box", DownloadSettings(), 60)


def test_secret_in_the_address_is_rejected_and_not_shown() -> None:
    with pytest.raises(DownloadError, match="AWS_ACCESS_KEY_ID") as raised:
        source_of("s3://user:a-secret@box/models", DownloadSettings())
    assert "a-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "list request: Error performing GET http://h/box?x in 2ms - status code: 403: <x>http://169.254.169.254/</x>",
            DownloadError,
            "s3://box/models denies access",
        ),
        (
            "Error performing PUT http://169.254.169.254/latest/token in 2ms - Server returned non-2xx status code: 404",
            DownloadError,
            r"no credentials were found \(.*404.*\); they come from AWS_ACCESS_KEY_ID",
        ),
        (
            "Error performing GET http://login/x in 2ms - Server returned non-2xx status code: 404",
            DownloadError,
            r"s3 failed .*404.*AWS_ACCESS_KEY_ID",
        ),
        (
            "Error performing GET http://h/box/x?sig=a-secret in 2ms - 409 Conflict: PublicAccessNotPermitted\n\nDebug: …",
            TransferError,
            r"s3 failed \(Exception: .*http://h/… in 2ms.*PublicAccessNotPermitted\)$",
        ),
    ],
)
def test_errors_of_the_store_are_classified(text: str, kind: type[Exception], message: str) -> None:
    error = ObjectSource("s3", "s3://box/models", DownloadSettings()).error_of(Exception(text))
    assert type(error) is kind
    assert re.search(message, str(error))
