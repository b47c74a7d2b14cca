"""Object stores are configured by variables, and their errors are classified. Nothing is sent."""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from pathlib import Path

import certifi
import pytest
from obstore.exceptions import PermissionDeniedError

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.errors import TransferError
from phasebus.initializer.downloads.sources import objects as objects_module
from phasebus.initializer.downloads.sources import source_of
from phasebus.initializer.downloads.sources.objects import ObjectSource
from phasebus.initializer.downloads.sources.stores import StoreKind, connect

KEY = "bm8gcmVhbCBrZXk="


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_")) or name.endswith("_CA_BUNDLE"):
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
        (
            (
                "Generic S3 error: Error performing list request: Error performing GET http://h/box in 2ms - Server returned "
                "non-2xx status code: 403 Forbidden: <Error><Code>RequestTimeTooSkewed</Code></Error>"
            ),
            DownloadError,
            r"denies access \(RequestTimeTooSkewed\); credentials and endpoint come from",
        ),
        (
            (
                "Generic S3 error: Error performing list request: Error performing GET http://h/box in 2ms - Server returned "
                "non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>No</Message></Error>"
            ),
            DownloadError,
            r"denies access to its listing, for which s3:ListBucket is needed \(AccessDenied: No\); credentials",
        ),
        (
            (
                "Error performing GET http://h/box/x in 2ms - Server returned non-2xx status code: 403 Forbidden: <Error>\n"
                "<Code>InvalidObjectState</Code>\n<Message>The operation is not valid for the storage class</Message></Error>"
            ),
            DownloadError,
            r"^s3://box/models is archived \(InvalidObjectState: The operation is .* class\); restore it",
        ),
        (
            (
                "Generic S3 error: Error performing list request: Error performing GET http://h/box in 2ms - Server returned "
                "non-2xx status code: 400 Bad Request: <?xml?>\n<Error><Code>AuthorizationHeaderMalformed</Code>"
                "<Message>the region is wrong; expecting 'milkyway'.</Message></Error>"
            ),
            DownloadError,
            r"\(AuthorizationHeaderMalformed: the region is wrong; expecting 'milkyway'.\); .*AWS_REGION",
        ),
        (
            (
                "Error performing GET http://h/box in 2ms - Received redirect without LOCATION, this normally indicates an "
                "incorrectly configured region"
            ),
            DownloadError,
            r"incorrectly configured region\); credentials and endpoint come from .*AWS_REGION",
        ),
        (
            (
                "Error performing GET https://h/box in 2ms - HTTP error: error sending request\n\nDebug source:\n"
                "  error: InvalidCertificate(\n    UnknownIssuer,\n  )"
            ),
            DownloadError,
            r"the certificate of the store of s3://box/models is not trusted \(UnknownIssuer\); name .* AWS_CA_BUNDLE",
        ),
    ],
)
def test_errors_of_the_store_are_classified(text: str, kind: type[Exception], message: str) -> None:
    error = ObjectSource("s3", "s3://box/models", DownloadSettings()).error_of(Exception(text))
    assert type(error) is kind
    assert re.search(message, str(error))


def test_one_object_is_found_without_permission_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionDeniedError("list request - Server returned non-2xx status code: 403 Forbidden")

    def head(_: object, key: str) -> dict[str, object]:
        if key != "models/tiny.gguf":
            raise FileNotFoundError(key)
        return {"path": key, "size": 4, "e_tag": "1"}

    monkeypatch.setattr("obstore.list", denied)
    monkeypatch.setattr("obstore.head", head)
    listing = ObjectSource("s3", "s3://box/models/tiny.gguf", DownloadSettings()).listing()
    assert (listing.single, [file.name for file in listing.files]) == (True, ["tiny.gguf"])
    with pytest.raises(DownloadError, match="denies access"):
        ObjectSource("s3", "s3://box/models", DownloadSettings()).listing()


@pytest.mark.parametrize("answers_older_request_only", [True, False])
def test_listing_of_which_a_store_sends_a_part_is_completed(
    answers_older_request_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = [{"path": f"models/{number:04d}", "size": 1, "e_tag": "1"} for number in range(1000)]
    added = {"path": "models/9999", "size": 1, "e_tag": "1"}

    def listed(*_: object, offset: str | None = None, **__: object) -> list[list[dict[str, object]]]:
        assert offset in {None, "models/0999"}
        return [page] if offset is None or answers_older_request_only else []

    monkeypatch.setattr("obstore.list", listed)
    monkeypatch.setattr(objects_module, "list_keys", lambda *_: [*page, added])
    source = ObjectSource("s3", "s3://box/models", DownloadSettings())
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert len(source.listing().files) == (1001 if answers_older_request_only else 1000)


@pytest.mark.parametrize(
    "model", ["s3://arn:aws:s3:eu-west-1:1:accesspoint/name/models", "s3://arn:aws:s3:::box/models"]
)
def test_address_with_an_arn_is_an_error_that_names_the_alias(model: str) -> None:
    with pytest.raises(DownloadError, match="is followed by an ARN; write the name of the bucket, or the alias"):
        ObjectSource("s3", model, DownloadSettings())


@pytest.mark.skipif(version("obstore").startswith(("0.10.", "0.11.")), reason="an obstore without that option")
@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_authorities_of_a_bundle_are_trusted(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    client = connect("s3", "box", DownloadSettings(), 1).client_options
    assert client["root_certificate"] == (tmp_path / "ca.pem").read_bytes()


def test_secrets_are_read_without_the_spaces_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "key\n", "AWS_SECRET_ACCESS_KEY": " secret\r\n", "AWS_REGION": " "}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("obstore.store.S3Store", lambda *_, **__: {name: os.environ.get(name) for name in variables})
    read = connect("s3", "box", DownloadSettings(), 1)
    assert read == {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": None}
    assert {name: os.environ[name] for name in variables} == variables


@pytest.mark.parametrize("token", ["token", ""])
def test_token_of_a_container_is_read_from_a_file_in_memory(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obstore.store.S3Store", lambda *_, config, **__: config)
    assert "container_authorization_token_file" not in connect("s3", "box", DownloadSettings(), 1)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9911/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", f"{token}\n")
    path = connect("s3", "box", DownloadSettings(), 1)["container_authorization_token_file"]
    assert Path(path).read_text(encoding="utf-8") == token
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/token")
    assert "container_authorization_token_file" not in connect("s3", "box", DownloadSettings(), 1)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://10.0.0.1:1338/"}, "http://10.0.0.1:1338"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, "http://[fd00:ec2::254]"),
        ({}, None),
    ],
)
def test_metadata_service_of_a_machine_is_the_one_that_is_named(
    variables: dict[str, str], address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("obstore.store.S3Store", lambda *_, config, **__: config)
    assert connect("s3", "box", DownloadSettings(), 1).get("metadata_endpoint") == address


def test_older_client_without_bundles_is_used_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, object]] = []

    def older(bucket: str, *, client_options: dict[str, object], **_: object) -> str:
        options.append({**client_options})
        if "root_certificate" in client_options:
            raise ValueError("Invalid key: root_certificate.")
        return bucket

    monkeypatch.setattr("obstore.store.S3Store", older)
    monkeypatch.setenv("CURL_CA_BUNDLE", certifi.where())
    assert connect("s3", "box", DownloadSettings(), 1) == "box"
    assert ["root_certificate" in each for each in options] == [True, False]


def test_bundle_of_amazon_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    connect("s3", "box", DownloadSettings(), 1)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(
        DownloadError, match=r"AWS_CA_BUNDLE names /nowhere/ca\.pem, which cannot be read: No such file"
    ):
        connect("s3", "box", DownloadSettings(), 1)


def test_default_profile_with_other_credentials_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default]\nsso_session = company\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    failure = Exception("Error performing PUT http://169.254.169.254/latest/api/token in 2ms - HTTP error")
    error = ObjectSource("s3", "s3://box/models", DownloadSettings()).error_of(failure)
    assert re.search("no credentials were found.* The profile 'default' obtains .* by sso_session", str(error))
