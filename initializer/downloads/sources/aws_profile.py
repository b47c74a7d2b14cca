"""Amazon's profile files, ``~/.aws/credentials`` and ``~/.aws/config``: credentials, region and endpoint of a profile.

obstore supports AWS_* variables, web identities and the metadata services of containers and machines, but no files. Format
and precedence: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html. Profiles without an access key
(SSO, an assumed role, a command) are not supported and are rejected.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import expanded

_OTHER_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Variables for credentials. All of them have precedence over the profile ``default``, the first one over any profile."""

_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_ELSEWHERE: Final = ("sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file")


def profile_config() -> dict[str, str]:
    """Return obstore's settings from the profile that AWS_PROFILE names, or ``default``; none without a profile.

    Raises:
        DownloadError: The profile that AWS_PROFILE names does not exist, or has no access key.
    """
    named = _profile_name()
    name = named or "default"
    values = _section(_file("AWS_CONFIG_FILE", "config"), "default" if name == "default" else f"profile {name}")
    values |= _section(_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name)
    if not values and named:
        raise DownloadError(
            f"AWS_PROFILE is {name!r}, and neither {_file('AWS_SHARED_CREDENTIALS_FILE', 'credentials')} nor "
            f"{_file('AWS_CONFIG_FILE', 'config')} has that profile"
        )
    config = {}
    if not any(map(os.environ.get, _OTHER_CREDENTIALS[:1] if named else _OTHER_CREDENTIALS)):
        config = {ours: values[theirs] for theirs, ours in _KEYS.items() if values.get(theirs)}
        if named and not {"access_key_id", "secret_access_key"} <= config.keys():
            elsewhere = next((key for key in _ELSEWHERE if key in values), None)
            cause = (
                f"obtains its credentials by {elsewhere}, which is not supported" if elsewhere else "has no access key"
            )
            raise DownloadError(
                f"the profile {name!r} of AWS_PROFILE {cause}; run `aws configure export-credentials --profile {name} "
                "--format env` and set the variables it prints"
            )
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")) and values.get("region"):
        config["region"] = values["region"]
    if (endpoint := _endpoint(values)) is not None:
        config["endpoint"] = endpoint
    return config


def _endpoint(values: Mapping[str, str]) -> str | None:
    """Return the endpoint for S3 that the section of services of a profile names, or the profile itself for all services."""
    services = values.get("services")
    section = _section(_file("AWS_CONFIG_FILE", "config"), f"services {services}") if services else {}
    lines = (line.partition("=") for line in section.get("s3", "").splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    return found.get("endpoint_url") or values.get("endpoint_url")


def _profile_name() -> str:
    """Return the name of the profile, without the newline of a secret that was made from a file; "" without one."""
    return os.environ.get("AWS_PROFILE", "").strip() or os.environ.get("AWS_DEFAULT_PROFILE", "").strip()


def unsupported_profile() -> str:
    """Return the end of a message for the case that the default profile obtains its credentials in another way, or ""."""
    if _profile_name():
        return ""
    values = _section(_file("AWS_CONFIG_FILE", "config"), "default")
    elsewhere = next((key for key in _ELSEWHERE if key in values), None)
    if elsewhere is None:
        return ""
    return (
        f". The profile 'default' obtains its credentials by {elsewhere}, which is not supported: run `aws configure "
        "export-credentials --format env` and set the variables it prints"
    )


def _file(variable: str, name: str) -> Path:
    return expanded(Path(os.environ.get(variable) or f"~/.aws/{name}"))


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, default_section="", inline_comment_prefixes=("#", ";"))
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise DownloadError(
            f"{path} cannot be read ({type(error).__name__}); it is where AWS profiles are kept"
        ) from None
    return dict(parser[name]) if parser.has_section(name) else {}
