"""Profiles of Amazon's configuration files, with the precedence of Amazon's own tools. Nothing is sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.sources.aws_profile import profile_config
from phasebus.initializer.downloads.sources.stores import connect

CREDENTIALS = """
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = default%secret
[prod]
aws_access_key_id = PRODKEY
aws_secret_access_key = prodsecret
aws_session_token = prodtoken
"""
CONFIG = """
[default]
region = eu-west-1
[profile prod]
region = us-west-2
endpoint_url = https://store.example.org
[profile login]
sso_session = company
[profile role]
role_arn = arn:aws:iam::1:role/r
source_profile = prod
"""
PROD = {
    "access_key_id": "PRODKEY",
    "secret_access_key": "prodsecret",
    "session_token": "prodtoken",
    "region": "us-west-2",
    "endpoint": "https://store.example.org",
}
DEFAULT = {"access_key_id": "DEFAULTKEY", "secret_access_key": "default%secret", "region": "eu-west-1"}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    return tmp_path / ".aws"


@pytest.mark.parametrize(
    ("variables", "config"),
    [
        ({"AWS_PROFILE": "prod"}, PROD),
        ({"AWS_PROFILE": "prod\n"}, PROD),
        ({}, DEFAULT),
        ({"AWS_PROFILE": "default"}, DEFAULT),
        ({"AWS_PROFILE": "prod", "AWS_REGION": "here"}, {k: v for k, v in PROD.items() if k != "region"}),
        ({"AWS_ACCESS_KEY_ID": "OTHER"}, {"region": "eu-west-1"}),
        ({"AWS_ACCESS_KEY_ID": "OTHER", "AWS_PROFILE": "role"}, {}),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, {"region": "eu-west-1"}),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_PROFILE": "prod"}, PROD),
    ],
)
def test_profile_and_variables_take_precedence_as_in_amazons_tools(
    variables: dict[str, str], config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert profile_config() == config


def test_no_files_are_no_profile(files: Path) -> None:
    (files / "credentials").unlink()
    (files / "config").unlink()
    assert profile_config() == {}


def test_files_may_lie_elsewhere(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "credentials").rename(files / "elsewhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files / "elsewhere"))
    assert profile_config() == DEFAULT


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("nowhere", "AWS_PROFILE is 'nowhere', and neither .*credentials nor .*config has that profile"),
        ("login", "obtains its credentials by sso_session, which is not supported; run `aws configure export-cred"),
        ("role", "obtains its credentials by role_arn, which is not supported"),
    ],
)
def test_profile_that_cannot_be_used_is_an_error(profile: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(DownloadError, match=message):
        profile_config()


def test_malformed_file_is_an_error_without_its_content(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "credentials").write_text("secret-without-a-section")
    with pytest.raises(DownloadError, match="credentials cannot be read") as raised:
        profile_config()
    assert "secret-without" not in str(raised.value)


def test_store_is_connected_with_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "prod")
    found = connect("s3", "box", DownloadSettings(), 60).config
    assert {name: found[name] for name in PROD} == PROD


def test_profile_files_may_have_a_mark_and_comments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = "\ufeff# ours\n[default]\nregion = eu-west-1 # near\ns3 =\n    addressing_style = path\n"
    (tmp_path / "config").write_text(content, encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert profile_config() == {"region": "eu-west-1"}


def test_endpoint_for_s3_in_a_section_of_services_wins(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = (
        "[services local]\ndynamodb =\n  endpoint_url = http://d.example\ns3 =\n  endpoint_url = http://s3.example\n"
    )
    (files / "config").write_text(f"[profile prod]\nservices = local\nendpoint_url = http://all.example\n{services}")
    monkeypatch.setenv("AWS_PROFILE", "prod")
    assert profile_config()["endpoint"] == "http://s3.example"
    (files / "config").write_text(f"[profile prod]\nservices = other\nendpoint_url = http://all.example\n{services}")
    assert profile_config()["endpoint"] == "http://all.example"
