from __future__ import annotations

import ssl
from http.client import BadStatusLine, RemoteDisconnected
from pathlib import Path

import certifi
import pytest

from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.authorities import trusted_authorities
from phasebus.initializer.downloads.sources.http import HttpClient


@pytest.mark.parametrize(
    ("verify_code", "remedy"),
    [
        (9, r"the clock of this machine is at \d{4}-\d\d-\d\d \d\d:\d\d UTC; correct it"),
        (10, "the clock of this machine is at .*, or renew the certificate"),
        (62, "its certificate is that of another host; check the address, and the proxy"),
        (92, "Python 3.13 and newer accept only certificates that are complete by RFC 5280: issue it, or that of its"),
        (20, "if its certificate is of your own authority, name that in SSL_CERT_FILE"),
    ],
)
def test_rejected_certificate_is_reported_with_what_to_do(
    verify_code: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = verify_code

    def fail(*_: object) -> None:
        raise error

    client = HttpClient(DownloadSettings())
    monkeypatch.setattr(client._connections, "get", fail)
    with pytest.raises(DownloadError, match=rf"the TLS connection to hub.example failed: .*; {remedy}"):
        client.read("https://hub.example/x", {}, 10)


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] no connection")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("scheme", "error", "kind", "message"),
    [
        ("https", tls_error("WRONG_VERSION_NUMBER"), DownloadError, "answers without TLS; write http://"),
        ("https", tls_error("TLSV1_ALERT_INTERNAL_ERROR"), TransferError, "failed: .*TLSV1_ALERT_INTERNAL_ERROR"),
        ("http", RemoteDisconnected(""), TransferError, "it closed the connection; if it expects TLS, write https://$"),
        ("https", RemoteDisconnected(""), TransferError, "it closed the connection$"),
        (
            "http",
            BadStatusLine("\x15\x03\x01"),
            TransferError,
            "its response is not HTTP; if it expects TLS, write https",
        ),
    ],
)
def test_address_with_the_wrong_scheme_is_reported_without_authorities(
    scheme: str, error: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    client = HttpClient(DownloadSettings())
    monkeypatch.setattr(client._connections, "get", fail)
    with pytest.raises(kind, match=message) as caught:
        client.read(f"{scheme}://hub.example/x", {}, 10)
    assert "SSL_CERT_FILE" not in str(caught.value)


def authorities(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509_ca"]


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A bundle with one authority."""
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path / "one.pem"
    path.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end, encoding="utf-8")
    return path


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundle_replaces_the_authorities_of_the_machine(variable: str, one: Path) -> None:
    context, problem = trusted_authorities({variable: str(one)})
    assert (authorities(context), problem) == (1, "")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_bundle_may_be_a_folder(tmp_path: Path) -> None:
    context, problem = trusted_authorities({"REQUESTS_CA_BUNDLE": str(tmp_path)})
    assert (authorities(context), problem) == (0, "")  # a folder is read when it is needed


def test_file_is_trusted_besides_a_bundle(one: Path) -> None:
    context, problem = trusted_authorities({"REQUESTS_CA_BUNDLE": str(one), "SSL_CERT_FILE": certifi.where()})
    assert authorities(context) > 1
    assert problem == ""


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_bundle_that_does_not_exist_is_named(variable: str, tmp_path: Path) -> None:
    _, problem = trusted_authorities({variable: str(tmp_path / "none.pem")})
    assert problem.startswith(f"{variable} names {tmp_path / 'none.pem'}")


def test_empty_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    _, problem = trusted_authorities({"CURL_CA_BUNDLE": str(tmp_path / "empty.pem")})
    assert problem.startswith("CURL_CA_BUNDLE names ")


def test_machine_without_authorities_gets_those_of_certifi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    none = ssl.get_default_verify_paths()._replace(capath=None)  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: none)
    assert authorities(trusted_authorities({})[0]) > 1


def test_authorities_need_no_key_identifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 rejects those without, which other programs accept."""
    strict = ssl.create_default_context()
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    monkeypatch.setattr(ssl, "create_default_context", lambda: strict)
    context, _ = trusted_authorities({})
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
