"""Where the value of a pair in free text ends, and which values are no secrets."""

from __future__ import annotations

import re
from typing import Final

MAX_FLAG_WORD: Final = 4
MIN_PASSWORD: Final = 8
MAX_GENERATED: Final = 512
LEAST_OF_EACH: Final = 2

_TAG: Final = re.compile(r"!{1,2}+[A-Za-z][\w:./-]*+[ \t]++")  # of YAML: !vault X
_OPENING_QUOTE: Final = re.compile(r"[bru]{0,2}(?P<quote>\"\"\"|'''|\\*+[\"'])", re.IGNORECASE)
_BARE: Final = re.compile(r"[^\s\"',;&<>}\])\\]*+")
_REFERENCE: Final = re.compile(r"\$\{\w++\}(?=[\s\"',;)\]}]|$)")
_QUERY: Final = re.compile(r"[^&#\s\"'<>]*+")
_WORD: Final = re.compile(r"[^\s,;]++")
_CREDENTIAL: Final = re.compile(r"[^\s\"'\\]++")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*+[ \t]++(?=[^\s\"'])")
_MANY_PARTS: Final = ("digest", "aws4-hmac-sha256", "hawk", "oauth")
_COOKIE: Final = re.compile(r"[^\s;\"'\\]++(?:;[ \t]*+[^\s;\"'\\]++)*+;?")
_BRACKETS: Final = re.compile(r"[\[\]{}()\n]")
_CLOSING: Final = {"[": "]", "{": "}", "(": ")"}

_NUMERAL: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]*+)?")
_DIGEST: Final = re.compile(r"(?:sha[0-9]*|md5|blake[0-9a-z]*|crc32c?|etag)[:=-]", re.IGNORECASE)
_RUN: Final = re.compile(r"[A-Za-z0-9]{16,}+")
_HEXADECIMAL: Final = re.compile(r"(?=[0-9]*+[a-fA-F])(?:[0-9a-f]{32,}+|[0-9A-F]{32,}+)")
_PLACEHOLDERS: Final = frozenset(
    [
        "",
        "none",
        "null",
        "true",
        "false",
        "str",
        "...",
        "…",
        "''",
        '""',
        "[]",
        "{}",
        "()",
        "***",
        "empty",
        "disabled",
        "enabled",
        "required",
        "optional",
        "unset",
    ]
)
_PROSE: Final = frozenset(
    {
        "a", "an", "and", "are", "argument", "at", "be", "by", "can", "cannot", "could", "did", "does", "doesn",
        "expected", "expired", "expires", "failed", "field", "file", "for", "from", "given", "got", "had", "has",
        "have", "header", "if", "in", "invalid", "is", "it", "missing", "must", "need", "needed", "needs", "no", "not",
        "of", "on", "only", "option", "or", "provided", "rejected", "required", "revoked", "set", "should", "so",
        "than", "that", "the", "then", "they", "this", "to", "too", "type", "unexpected", "unknown", "unset", "use",
        "used", "using", "valid", "value", "was", "were", "when", "which", "will", "with", "without", "wrong", "you",
        "your",
    }
)  # fmt: skip


def end_of_value(text: str, at: int, name: str, *, in_query: bool) -> tuple[int, int]:
    """Return where the value that starts at `at` begins, inside its quotes, and where it ends."""
    if in_query:
        return at, _end(_QUERY, text, at)
    at = _end(_TAG, text, at)
    if quote := _OPENING_QUOTE.match(text, at):
        end = _end_of_quoted(text, quote.end(), quote["quote"])
        if text[quote.end() : end].strip("\\'\"") == "" and text[end + 1 : end + 2] in ("'", "\\"):
            return at, _end(_WORD, text, at)  # a quote quoted for a shell: '\\''
        return quote.end(), end
    if text[at : at + 1] in _CLOSING and not text.startswith("[redacted]", at):
        return at, _end_of_bracketed(text, at)
    lowered = name.lower()
    if lowered.endswith("authorization"):
        return at, _end_of_credentials(text, at)
    if lowered.endswith("cookie"):
        return at, _end(_COOKIE, text, at)
    if text.startswith("[redacted]", at):
        return at, at + len("[redacted]")
    if reference := _REFERENCE.match(text, at):
        return at, reference.end()
    end = _end(_BARE, text, at)
    if text[at:end].endswith("(") and (quote := _OPENING_QUOTE.match(text, end)):  # bytes.fromhex('X')
        return quote.end(), _end_of_quoted(text, quote.end(), quote["quote"])
    return at, end


def is_placeholder(value: str) -> bool:
    """Return whether `value` stands for no secret: nothing, a constant, or a reference to a variable."""
    return (
        (len(value) < 10 and value.lower() in _PLACEHOLDERS)
        or (value.startswith("${") and value.endswith("}"))
        or (len(value) < 4 and not any(character.isalnum() for character in value))
    )


def is_numeral(value: str) -> bool:
    """Return whether `value` is a number of at most twelve digits before the point."""
    return _NUMERAL.fullmatch(value) is not None


def is_generated(value: str) -> bool:
    """Return whether `value` looks like a generated key, and not like a name, a path, a number, a UUID or a digest.

    That is a run of letters of both cases and digits, at least two of each, or of hexadecimal digits.
    """
    if len(value) > MAX_GENERATED or value.startswith(("/", ".", "~")) or _DIGEST.match(value):
        return False
    return any(
        _HEXADECIMAL.fullmatch(run)
        or min(sum(map(kind, run)) for kind in (str.islower, str.isupper, str.isdigit)) >= LEAST_OF_EACH
        for run in _RUN.findall(value)
    )


def is_password(value: str) -> bool:
    """Return whether `value` has letters of both cases and a digit, like a password and unlike a name, a path or a number."""
    if not MIN_PASSWORD <= len(value) <= MAX_GENERATED or not {"/", "_", ":"}.isdisjoint(value):
        return False
    return all(any(map(kind, value)) for kind in (str.islower, str.isupper, str.isdigit))


def is_prose(word: str, most: int | None = None) -> bool:
    """Return whether `word` continues a sentence; with `most`, also if it is a lower-case word of so many letters."""
    word = word.rstrip(".:!?")
    return word in _PROSE or (most is not None and word.isalpha() and word.islower() and len(word) <= most)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return end if end >= 0 else len(text)


def _end_of_quoted(text: str, at: int, quote: str) -> int:
    """Return where the closing quote stands; the end of the line if there is none."""
    end = text.find(quote, at)
    while end > 0 and len(quote) == 1 and _is_escaped(text, end, at):
        end = text.find(quote, end + 1)
    return end if end >= 0 else _end_of_line(text, at)


def _is_escaped(text: str, at: int, since: int) -> bool:
    begin = at
    while begin > since and text[begin - 1] == "\\":
        begin -= 1
    return (at - begin) % 2 == 1


def _end_of_bracketed(text: str, at: int) -> int:
    """Return the end of what the bracket at `at` opens; the end of the line if it is not closed in it."""
    depth = 0
    for match in _BRACKETS.finditer(text, at):
        if match[0] == "\n":
            return match.start()
        depth += 1 if match[0] in _CLOSING else -1
        if depth <= 0:
            return match.end()
    return len(text)


def _end_of_credentials(text: str, at: int) -> int:
    """Return the end of an Authorization header's value: one credential, with its scheme if it has one."""
    scheme = _SCHEME.match(text, at)
    if scheme is None:
        return _end(_CREDENTIAL, text, at)
    if is_prose(scheme[0].strip()):
        return at + len(scheme[0].rstrip())
    if scheme[0].strip().lower() in _MANY_PARTS:
        return _end_of_line(text, at)
    return _end(_CREDENTIAL, text, scheme.end())
