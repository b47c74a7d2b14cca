"""What object stores make of the environment; nothing is sent."""

from __future__ import annotations

import os

import pytest

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.sources.stores import StoreKind, connect

KEY = "bm8gcmVhbCBrZXk="


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("kind", "variables", "leads_to"),
    [
        ("s3", {"AWS_ENDPOINT_URL": "http://one", "AWS_ENDPOINT_URL_S3": "http://two"}, "http://two"),
        ("gs", {"STORAGE_EMULATOR_HOST": "localhost:1", "GOOGLE_SKIP_SIGNATURE": "true"}, "http://localhost:1"),
        ("az", {"AZURE_STORAGE_ACCOUNT": "us", "AZURE_STORAGE_KEY": KEY}, None),
        (
            "az",
            {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=us;AccountKey={KEY};BlobEndpoint=http://here/us;"},
            "http://here/us",
        ),
        (
            "az",
            {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=us;AccountKey={KEY};EndpointSuffix=core.example"},
            "https://us.blob.core.example",
        ),
    ],
)
def test_variables_lead_to_the_store(
    kind: StoreKind, variables: dict[str, str], leads_to: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = connect(kind, "box", DownloadSettings(), 60).config
    assert (config.get("endpoint") or config.get("base_url")) == leads_to


@pytest.mark.parametrize(
    ("kind", "variables", "says"),
    [
        ("az", {}, "az://box: .*[Aa]ccount.*come from AZURE_STORAGE_CONNECTION_STRING"),
        ("az", {"AZURE_STORAGE_ACCOUNT": "us", "AZURE_STORAGE_KEY": "§"}, "[Kk]ey.*come from AZURE_STORAGE"),
        ("az", {"AZURE_STORAGE_CONNECTION_STRING": "hello"}, "AZURE_STORAGE_CONNECTION_STRING cannot be read"),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}, "/nowhere.json.*come from GOOGLE_APPLICATION"),
        ("s3", {"AWS_SKIP_SIGNATURE": "perhaps"}, "perhaps.*come from AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_cannot_be_used_is_named(
    kind: StoreKind, variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DownloadError, match=says):
        connect(kind, "box", DownloadSettings(), 60)
