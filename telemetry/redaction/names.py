"""Which names denote secrets: of options, fields, variables, headers, and parameters of connection strings and queries."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from phasebus.telemetry.redaction.values import is_generated, is_password

MAX_NAME_CHARACTERS: Final = 200
"""A longer name is judged by its last characters."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_SECRET_WORDS: Final = frozenset(
    {
        "secret", "secrets", "password", "passwords", "passwd", "passphrase", "pwd", "pw", "credential", "credentials",
        "authorization", "apikey", "apikeys", "accesskey", "secretkey", "privatekey", "sharedkey", "signature", "cookie",
        "cookies", "jwt", "bearer", "authtoken", "accesstoken", "passcode", "otp", "verifier", "passin", "passout",
        "presharedkey", "dockerconfigjson", "dockercfg", "identitytoken", "registrytoken", "refreshtoken", "sessiontoken",
        "jsessionid", "phpsessid", "bindpw",
    }
)  # fmt: skip

_SECRET_ENDINGS: Final = (
    "password", "passwd", "passphrase", "apikey", "dbpass", "sshpass", "userpass", "rootpass", "adminpass", "mailpass",
    "storepass", "keypass", "bindpass",
)  # fmt: skip

_KEY_QUALIFIERS: Final = frozenset(
    {
        "api", "access", "account", "admin", "app", "auth", "client", "consumer", "deploy", "encryption", "functions",
        "ingestion", "instrumentation", "license",
        "master", "preshared", "private", "secret", "service", "session", "shared", "sharedaccess", "signing", "ssh",
        "storage", "subscription", "webhook",
    }
)  # fmt: skip
"""Words before "key" that make it a secret, however the name is written."""

HARMLESS_KEYS: Final = frozenset(
    {
        "arrow", "cache", "column", "config", "dict", "foreign", "group", "hash", "host", "index", "join", "label", "map",
        "message", "metric", "object", "parameter", "partition", "primary", "public", "query", "routing", "sort", "state",
        "unique", "value", "weight", "kv",
    }
)  # fmt: skip
"""Words before "key" that keep a name in capitals, such as of a variable, from being a secret."""

_PASS_QUALIFIERS: Final = frozenset(
    {
        "admin", "auth", "become", "bind", "client", "database", "db", "email", "ftp", "http", "imap", "ldap", "login",
        "mail", "mysql", "pg", "postgres", "proxy", "redis", "root", "server", "smtp", "sql", "ssh", "sudo", "user",
    }
)  # fmt: skip
"""Words before "pass" that make it a secret; others have a forward pass or count passes."""

AMBIGUOUS_WORDS: Final = (
    "assertion", "auth", "hmac", "key", "keys", "licence", "license", "login", "pass", "psk", "pin", "sig",
)  # fmt: skip
"""Last words of names whose values are secrets if they look like it."""

_PIN_DIGITS: Final = range(4, 9)

_HARMLESS_TOKENS: Final = frozenset(
    {
        "audio", "bos", "cls", "decode", "draft", "end", "eos", "eot", "every", "expected", "first", "generated", "image",
        "input", "last", "mask", "max", "min", "next", "num", "output", "pad", "per", "prefill", "prompt", "sep", "special",
        "start", "stop", "think", "unexpected", "unk", "video", "vision",
    }
)  # fmt: skip
"""Words before "token" that make it a token of text."""

_TOKEN_SUFFIXES: Final = frozenset(
    {
        "budget", "classification", "count", "counts", "embedding", "id", "ids", "index", "ize", "latency", "length",
        "level", "limit", "mask", "num", "per", "rate", "size", "threshold", "throughput", "time", "type", "types",
        "usage",
    }
)  # fmt: skip
"""Words after "token" that make it a token of text."""

_LOCATION_SUFFIXES: Final = frozenset(
    {
        "age", "algorithm", "count", "days", "dir", "directory", "enabled", "endpoint", "file", "filename", "folder", "length",
        "mount", "name", "namespace", "path", "policy", "provider", "required", "sock", "source", "ttl", "type",
    }
)  # fmt: skip
"""Last words of a name that denote the location or the kind of a secret and not the secret: SECRET_NAME=node-0."""

_QUERY_NAMES: Final = frozenset(
    {
        "sig", "se", "sp", "sv", "sr", "spr", "st", "skoid", "sktid", "key", "code", "auth", "policy", "expires", "hmac",
        "assertion", "ticket", "googleaccessid", "awsaccesskeyid", "sas", "pass",
    }
)  # fmt: skip
"""Parameters of signed addresses: Amazon, Google, Azure, CloudFront and OAuth."""


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Return whether a value under `name` is a secret: ``HF_TOKEN``, ``--api-key``, ``AccountKey``, ``X-Auth-Token``."""
    name = name[-MAX_NAME_CHARACTERS:].removeprefix("-D")  # a property of Java: -DsecretKey=X
    if name in ("PWD", "OLDPWD"):
        return False
    if name.lower() == "x-honeycomb-team":
        return True
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or words[-1] in _LOCATION_SUFFIXES:
        return False
    if any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in words):
        return True
    return any(
        _is_token(words, at)
        or _is_key(words, at, in_capitals=name.isupper())
        or (word == "pass" and at and words[at - 1] in _PASS_QUALIFIERS)
        or (word == "auth" and (len(words) == 1 or words[0] == "x"))
        for at, word in enumerate(words)
    )


def is_secret_pair(name: str, value: str) -> bool:
    """Return whether `value` under `name` is a secret: by the name, or by both (``key=Xy7…``, ``pin: 4829``)."""
    if is_secret_name(name):
        return True
    words = _WORDS.findall(name[-MAX_NAME_CHARACTERS:])
    last = words[-1].lower() if words else ""
    if last in ("pass", "psk") and is_password(value):
        return True
    if last == "pin":
        return value.isdecimal() and len(value) in _PIN_DIGITS
    if last not in AMBIGUOUS_WORDS or (len(words) > 1 and words[-2].lower() in HARMLESS_KEYS):
        return False
    return is_generated(value)


def is_secret_query(name: str) -> bool:
    """Return whether a parameter of an address's query is a secret."""
    lowered = name.lower()
    return lowered in _QUERY_NAMES or lowered.startswith(("x-amz-", "x-goog-")) or is_secret_name(name)


def is_key_qualifier(word: str) -> bool:
    """Return whether `word` before the word "key" makes it a secret: ``API key: X``."""
    return word.lower() in _KEY_QUALIFIERS


def is_quantity(name: str) -> bool:
    """Return whether `name` may denote a number of tokens: a numeral under it is no secret."""
    words = [word.lower() for word in _WORDS.findall(name[-MAX_NAME_CHARACTERS:])]
    return "tokens" in words and _SECRET_WORDS.isdisjoint(words)


def _is_token(words: list[str], at: int) -> bool:
    if words[at] not in ("token", "tokens"):
        return False
    before = words[at - 1] if at else ""
    after = words[at + 1] if at + 1 < len(words) else ""
    return before not in _HARMLESS_TOKENS and after not in _TOKEN_SUFFIXES


def _is_key(words: list[str], at: int, *, in_capitals: bool) -> bool:
    if words[at] not in ("key", "keys") or not at:
        return False
    if words[at - 1] in _KEY_QUALIFIERS:
        return True
    return in_capitals and at == len(words) - 1 and words[at - 1] not in HARMLESS_KEYS
