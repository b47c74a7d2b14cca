"""The certificate authorities that a server's certificate is checked against.

httpx reads SSL_CERT_FILE and SSL_CERT_DIR, requests REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE; versions of `huggingface_hub` use
one or the other, so images set any of them.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_FILE: Final = "SSL_CERT_FILE"
_WRONG_TIME: Final = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NOT_STRICT: Final = frozenset(range(79, 94))  # X509_V_ERR_INVALID_CA to X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3
_OTHER_HOST: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def trusted_authorities(environment: Mapping[str, str] = os.environ) -> tuple[ssl.SSLContext, str]:
    """Return the authorities that the variables name, and what is wrong with the variables; else those of the machine.

    A bundle may be a file or a folder. One that cannot be read is ignored. A machine without authorities, such as a small
    image, gets those of the package ``certifi``.
    """
    bundle = next((name for name in _BUNDLES if environment.get(name)), None)
    problems = []
    if bundle is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            _load(context, environment[bundle])
        except (OSError, ValueError) as error:
            problems.append(f"{bundle} names {environment[bundle]}, which cannot be used ({error})")
        else:
            if environment.get(_FILE):
                with suppress(OSError, ValueError):
                    _load(context, environment[_FILE])
            return context, ""
    context = ssl.create_default_context()
    # from Python 3.13 on, authorities without key identifiers, as companies have them, are rejected; curl accepts them
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if (file := environment.get(_FILE)) and not os.path.isfile(file):
        problems.append(f"{_FILE} names {file}, which is not a file")
    paths = ssl.get_default_verify_paths()
    if not context.cert_store_stats()["x509_ca"] and paths.capath is None:
        with suppress(ImportError, OSError, ValueError):
            import certifi

            _load(context, certifi.where())
    return context, "; ".join(problems)


def certificate_remedy(verify_code: int) -> str:
    """Return what to do about a certificate that OpenSSL has rejected with this code (openssl-verification-options(1))."""
    if verify_code in _WRONG_TIME:
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return f"the clock of this machine is at {now} UTC; correct it, or renew the certificate"
    if verify_code in _OTHER_HOST:
        return "its certificate is that of another host; check the address, and the proxy that leads there"
    if verify_code in _NOT_STRICT:
        return (
            "Python 3.13 and newer accept only certificates that are complete by RFC 5280: issue it, or that of its "
            "authority, again with what is missing"
        )
    return "if its certificate is of your own authority, name that in SSL_CERT_FILE"


def _load(context: ssl.SSLContext, path: str) -> None:
    if os.path.isdir(path):
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
