"""Any text. Redaction ends, is printable, can be repeated, and masks a secret after the text.

The first byte of an input selects what the others are: free text, a name, arguments, attributes, data, or what is learned from.
"""

from __future__ import annotations

import json
from typing import Any

from phasebus.printable import printable_text
from phasebus.telemetry.redaction import (
    forget_secrets,
    learn_data,
    learn_environment,
    learn_url,
    redact,
    redact_arguments,
    redact_attributes,
    redact_data,
    redact_name,
)

_SECRET = "Zq9xKs72LmWv"
_TEXTS = [
    "curl -H 'Authorization: Token abc123def' https://user:pa:ss@host/m?sig=abc&page=1#x",
    "{'api_key': ['X1y2z3'], 'b': b'\\xff', \"token\": \"a\\\"b\"}",
    "AccountName=a;AccountKey=abc123==;EndpointSuffix=core",
    'vllm serve m --api-key a b --hf-token=hf_abcdefgh -u user:pass --override \'{"password": "x1y2"}\'',
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    "cookie: a=b; c=d\nAPI key: sk-abcdefghijklmnopqrst\npassword:\n  - one\nbearer eyJhbGciOi.eyJzdWIi.sig",
    "tokens=12 max_tokens: 5 token is invalid \x1b]0;x\x07 \udcff \u202e",
]

INSTRUMENTED = ["phasebus.telemetry.redaction", "phasebus.printable"]
SEEDS = [
    kind + text.encode("utf-8", "surrogateescape") for kind in (b"t", b"n", b"a", b"m", b"d", b"l") for text in _TEXTS
]
TOKENS = [
    b"://", b"@", b"token", b"api_key=", b"api_key: ", b"--password ", b"Authorization: ", b"Bearer ", b"Cookie: ", b"hf_",
    b"sk-", b"eyJ", b"-----BEGIN PRIVATE KEY-----", b"-----END", b"[redacted]", b"'", b'"', b'\\"', b"{", b"[", b"}", b";", b"&sig=",
    b"\n - ", b"\x1b", b"\xed\xa0\x80", b"\xe2\x80\xae", b"${A}", b":=", b"=>",
]  # fmt: skip


def check(data: bytes) -> None:
    """Redact the text in one way."""
    forget_secrets()
    kind, text = data[:1], data[1:].decode("utf-8", "surrogateescape")
    if kind == b"n":
        name = redact_name(text)
        assert printable_text(name) == name
        assert "\n" not in name
    elif kind == b"a":
        _check_text("\n".join(redact_arguments([*text.split(), "--api-key", _SECRET])))
    elif kind == b"m":
        attributes = redact_attributes({text: _SECRET, "api_key": text, "note": text, "HF_TOKEN": data})
        json.dumps(attributes, allow_nan=False).encode()
    elif kind == b"d":
        json.dumps(redact_data({"value": _value(text), text: text}))
    elif kind == b"l":
        learn_data({"value": _value(text), text: text})
        learn_url(text)
        learn_environment({"URL": text, "OTEL_EXPORTER_OTLP_HEADERS": text, text: text})
        _check_text(redact(text))
    else:
        once = redact(text)
        _check_text(once)
        redact(once).encode()
        pairs = "\n".join(f"{name}={_SECRET}" for name in ("api_key", "HF_TOKEN", "x-auth-token"))
        assert _SECRET not in redact(f"{text}\n{pairs}")


def _check_text(text: str) -> None:
    text.encode()
    assert printable_text(text) == text


def _value(text: str) -> Any:
    """Return `text` as JSON if it is JSON, else itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
