"""Connect to object stores as the environment says: credentials and endpoints by each ecosystem's usual variables.

obstore reads most of them by itself; here are those that it does not know, and what lets an endpoint be plain HTTP.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.telemetry.redaction import redact

StoreKind = Literal["s3", "gs", "az"]

HINTS: dict[StoreKind, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SKIP_SIGNATURE=true), AWS_REGION and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or GOOGLE_SKIP_SIGNATURE=true) and GOOGLE_BASE_URL",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN "
    "(or AZURE_SKIP_SIGNATURE=true)",
}
"""Which variables say who one is, and where the store is."""

_ENDPOINTS: dict[StoreKind, tuple[str, tuple[str, ...]]] = {
    "s3": ("endpoint", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")),
    "gs": ("base_url", ("GOOGLE_BASE_URL",)),
    "az": ("endpoint", ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")),
}
"""What obstore calls an endpoint, and the variables that name one; the first that is set counts."""

_EMULATOR = "STORAGE_EMULATOR_HOST"
"""The variable by which Google's own libraries are led to an emulator, which they tell no credentials."""

_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"

_ADDRESS = re.compile(r"(Error performing [A-Z]+ [a-z]+://[^\s/]+/)\S+")
"""What obstore asked for, in its errors: it is long, and may be signed."""


def connect(kind: StoreKind, bucket: str, settings: DownloadSettings, longest: float) -> Any:
    """Return obstore's client of a bucket. Nothing is sent yet.

    Args:
        kind: Which store.
        bucket: The bucket, or what Azure calls a container.
        settings: How to fetch.
        longest: How many seconds one request may take.

    Raises:
        DownloadError: What the variables say cannot be used.
    """
    from obstore.store import AzureStore, GCSStore, S3Store

    config: dict[str, Any] = _azure() if kind == "az" else {}
    called, variables = _ENDPOINTS[kind]
    endpoint = config.get(called) or next(filter(None, map(os.environ.get, variables)), None)
    if kind == "gs" and not endpoint and (emulator := os.environ.get(_EMULATOR)):
        endpoint = emulator if "://" in emulator else f"http://{emulator}"
        config["skip_signature"] = True
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=longest),
        "connect_timeout": timedelta(seconds=settings.connect_seconds),
    }
    if endpoint:
        scheme, separator, rest = endpoint.partition("://")
        if not separator or scheme.lower() not in {"http", "https"}:
            raise DownloadError(
                f"{kind}://{bucket}: the endpoint in {' or '.join(variables)} has to begin with https:// or http://"
            )
        config[called] = f"{scheme.lower()}://{rest.rstrip('/')}"
        client["allow_http"] = scheme.lower() == "http"
    store: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[kind]
    try:
        return store(bucket, config=config, client_options=client, retry_config={"max_retries": 0})
    except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
        raise DownloadError(
            f"{kind}://{bucket}: {first_line(error)}; credentials and endpoint come from {HINTS[kind]}"
        ) from None


def first_line(error: Exception) -> str:
    """Return what an error of obstore says, without what it goes on to say to its developers, and what it asked for."""
    line = redact(str(error)).strip().partition("\n")[0]
    return _ADDRESS.sub(r"\1…", line)[:300]


def _azure() -> dict[str, Any]:
    """Return what the variables of Azure's own command and libraries say; a connection string says it all."""
    if string := os.environ.get(_CONNECTION_STRING):
        return _connection(string)
    found = {
        "account_name": os.environ.get("AZURE_STORAGE_ACCOUNT"),
        "account_key": os.environ.get("AZURE_STORAGE_KEY"),
    }
    return {name: value for name, value in found.items() if value}


def _connection(string: str) -> dict[str, Any]:
    """Return what a connection string of Azure says; its keys may be written in any case."""
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
    if endpoint and not account:  # as in the string of a shared access signature
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
