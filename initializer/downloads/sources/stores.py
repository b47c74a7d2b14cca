"""Connections to object stores, with credentials and endpoints from each ecosystem's usual variables.

obstore reads most variables by itself. This module reads the others, and allows plain HTTP for an http:// endpoint.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import expanded
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.aws_profile import profile_config
from phasebus.telemetry.redaction import redact

StoreKind = Literal["s3", "gs", "az"]

HINTS: dict[StoreKind, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE (or AWS_SKIP_SIGNATURE=true), AWS_REGION and "
    "AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or GOOGLE_SKIP_SIGNATURE=true) and GOOGLE_BASE_URL",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN "
    "(or AZURE_SKIP_SIGNATURE=true)",
}
"""The variables for credentials and the endpoint, for messages."""

_ENDPOINTS: dict[StoreKind, tuple[str, tuple[str, ...]]] = {
    "s3": ("endpoint", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")),
    "gs": ("base_url", ("GOOGLE_BASE_URL",)),
    "az": ("endpoint", ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")),
}
"""obstore's option for an endpoint, and the variables for it; the first one that is set is used."""

_PREFIXES: dict[StoreKind, str] = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_LOCK = threading.Lock()

_EMULATOR = "STORAGE_EMULATOR_HOST"
"""The variable of Google's own libraries for an emulator, to which they send no credentials."""


_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"

_ADDRESS = re.compile(r"(Error performing [A-Z]+ [a-z]+://[^\s/]+/)\S+")
"""The address in a message of obstore; it is removed because it is long and may be signed."""


def connect(kind: StoreKind, bucket: str, settings: DownloadSettings, longest: float) -> Any:
    """Return obstore's client for a bucket, without sending a request.

    Args:
        kind: The kind of store.
        bucket: The bucket, or Azure's container.
        settings: The limits.
        longest: The time limit of one request, in seconds.

    Raises:
        DownloadError: The variables cannot be used.
    """
    from obstore.store import AzureStore, GCSStore, S3Store

    config: dict[str, Any] = _azure() if kind == "az" else {}
    option, variables = _ENDPOINTS[kind]
    endpoint = config.get(option) or next(filter(None, map(os.environ.get, variables)), None)
    if kind == "s3":
        profile = profile_config()
        endpoint = endpoint or profile.pop("endpoint", None)
        config |= profile | _metadata_services()
    if kind == "gs" and not endpoint and (emulator := os.environ.get(_EMULATOR)):
        endpoint = emulator if "://" in emulator else f"http://{emulator}"
        config["skip_signature"] = True
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=longest),
        "connect_timeout": timedelta(seconds=settings.connect_seconds),
    }
    if kind == "s3" and (authorities := _authorities()) is not None:
        client["root_certificate"] = authorities
    if endpoint:
        endpoint = endpoint.strip()
        scheme, separator, rest = endpoint.partition("://")
        if not separator or scheme.lower() not in {"http", "https"}:
            raise DownloadError(
                f"{kind}://{bucket}: the endpoint in {' or '.join(variables)} has to begin with https:// or http://"
            )
        config[option] = f"{scheme.lower()}://{rest.rstrip('/')}"
        client["allow_http"] = scheme.lower() == "http"
    store: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[kind]
    try:
        with _cleaned_variables(_PREFIXES[kind]):
            try:
                return store(bucket, config=config, client_options=client, retry_config={"max_retries": 0})
            except ValueError as error:
                if "Invalid key: root_certificate" not in str(error):
                    raise
                del client["root_certificate"]  # older releases of obstore have no such option
                return store(bucket, config=config, client_options=client, retry_config={"max_retries": 0})
    except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
        raise DownloadError(
            f"{kind}://{bucket}: {first_line(error)}; credentials and endpoint come from {HINTS[kind]}"
        ) from None


def _metadata_services() -> dict[str, str]:
    """Return obstore's settings for Amazon's services of credentials, from variables that it does not read itself.

    These are the address of the service of machines, and the token for that of containers, which obstore reads from a file.
    """
    found = {}
    if os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") and not os.environ.get(
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
    ):
        found["container_authorization_token_file"] = _file_of(os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", ""))
    if address := os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").strip():
        found["metadata_endpoint"] = address.rstrip("/")
    elif os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").strip().lower() == "ipv6":
        found["metadata_endpoint"] = "http://[fd00:ec2::254]"
    return found


@cache
def _file_of(secret: str) -> str:
    """Return the path of a file in memory with a secret; only this process can read it."""
    descriptor = os.memfd_create("token")
    os.write(descriptor, secret.strip().encode())
    return f"/proc/self/fd/{descriptor}"


def _authorities() -> bytes | None:
    """Return the certificates that are trusted besides those of the machine and of SSL_CERT_FILE; None without them.

    Raises:
        DownloadError: AWS_CA_BUNDLE names a file that cannot be read. The other variables are not those of Amazon's tools.
    """
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):
            try:
                return expanded(Path(path)).read_bytes()
            except OSError as error:
                if variable == "AWS_CA_BUNDLE":
                    raise DownloadError(f"{variable} names {path}, which cannot be read: {error.strerror}") from None
    return None


@contextmanager
def _cleaned_variables(prefix: str) -> Iterator[None]:
    """Unset the empty variables that begin with `prefix`, and strip the others, while obstore reads them.

    The stores' own tools take an empty variable for an unset one; obstore takes an empty endpoint, and fails. A secret from
    a file often ends in a newline, with which obstore cannot make a header.
    """
    with _LOCK:
        before = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
        for name, value in before.items():
            if not value.strip():
                del os.environ[name]
            elif value != value.strip():
                os.environ[name] = value.strip()
        try:
            yield
        finally:
            os.environ.update(before)


def first_line(error: Exception) -> str:
    """Return the first line of an obstore error's message, without the address."""
    line = redact(str(error)).strip().partition("\n")[0]
    return _ADDRESS.sub(r"\1…", line)[:300]


def _azure() -> dict[str, Any]:
    """Return obstore's settings from the variables of Azure's own tools; a connection string replaces all others."""
    if string := os.environ.get(_CONNECTION_STRING):
        return _connection(string)
    found = {
        "account_name": os.environ.get("AZURE_STORAGE_ACCOUNT"),
        "account_key": os.environ.get("AZURE_STORAGE_KEY"),
    }
    return {name: value for name, value in found.items() if value}


def _connection(string: str) -> dict[str, Any]:
    """Return obstore's settings from a connection string of Azure; its keys are case-insensitive."""
    parts = {}
    for part in filter(None, map(str.strip, string.split(";"))):
        name, equals, value = part.partition("=")
        if not equals:
            raise DownloadError(
                f"{_CONNECTION_STRING} cannot be read; it is written AccountName=…;AccountKey=…, with BlobEndpoint=… "
                "where the store is not Azure's own"
            )
        parts[name.lower()] = value
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return {"use_emulator": True}
    endpoint, account = parts.get("blobendpoint"), parts.get("accountname")
    if endpoint and not account:  # as in a connection string with a shared access signature
        account = (urlsplit(endpoint).hostname or "").partition(".")[0]
    if account and not endpoint and "endpointsuffix" in parts:
        endpoint = f"{parts.get('defaultendpointsprotocol', 'https')}://{account}.blob.{parts['endpointsuffix']}"
    found = {
        "account_name": account,
        "account_key": parts.get("accountkey"),
        "sas_key": parts.get("sharedaccesssignature"),
        "endpoint": endpoint,
    }
    return {name: value for name, value in found.items() if value}
