"""Any text. Redaction ends, is printable, can be repeated, and masks a secret after the text."""

from __future__ import annotations

import contextlib
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

SEEDS = [text.encode("utf-8", "surrogateescape") for text in _TEXTS]
TOKENS = [
    b"://", b"@", b"token", b"api_key=", b"api_key: ", b"--password ", b"Authorization: ", b"Bearer ", b"Cookie: ", b"hf_",
    b"sk-", b"eyJ", b"-----BEGIN PRIVATE KEY-----", b"-----END", b"[redacted]", b"'", b'"', b'\\"', b"{", b"[", b"}", b";", b"&sig=",
    b"\n - ", b"\x1b", b"\xed\xa0\x80", b"\xe2\x80\xae", b"${A}", b":=", b"=>",
]  # fmt: skip


def check(data: bytes) -> None:
    """Redact the text in every way."""
    forget_secrets()
    text = data.decode("utf-8", "surrogateescape")
    once = redact(text)
    once.encode()
    redact(once).encode()
    assert printable_text(once) == once
    name = redact_name(text)
    assert printable_text(name) == name
    assert "\n" not in name
    pairs = "\n".join(f"{name}={_SECRET}" for name in ("api_key", "HF_TOKEN", "x-auth-token"))
    assert _SECRET not in redact(f"{text}\n{pairs}")
    attributes = redact_attributes({text: _SECRET, "api_key": text, "note": text, "HF_TOKEN": data})
    json.dumps(attributes, allow_nan=False).encode()
    "\n".join(redact_arguments([*text.split(), "--api-key", _SECRET])).encode()
    value: Any = text
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
    json.dumps(redact_data({"value": value, text: [value, text]}))
    learn_data({"value": value, text: value})
    learn_url(text)
    learn_environment({"URL": text, "OTEL_EXPORTER_OTLP_HEADERS": text, text: text})
    learned = redact(text)
    learned.encode()
    assert printable_text(learned) == learned
