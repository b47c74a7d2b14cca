"""Redaction of free text: known secrets, credentials by their form, and values under secret names.

Every pattern matches in linear time: a run of characters is entered at its start alone, and quantifiers are possessive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from phasebus.printable import bounded_text, printable_text, printable_value
from phasebus.telemetry.redaction.commands import secrets_of_text
from phasebus.telemetry.redaction.credentials import without_credentials
from phasebus.telemetry.redaction.known import MASK, learn_secret, mask_known, on_change
from phasebus.telemetry.redaction.names import (
    AMBIGUOUS_WORDS,
    HARMLESS_KEYS,
    is_key_qualifier,
    is_quantity,
    is_secret_name,
    is_secret_pair,
    is_secret_query,
)
from phasebus.telemetry.redaction.notations import without_notations
from phasebus.telemetry.redaction.values import (
    MAX_FLAG_WORD,
    MAX_GENERATED,
    end_of_value,
    is_numeral,
    is_placeholder,
    is_prose,
)

if TYPE_CHECKING:
    from phasebus.bus import StepFailed

MAX_ERROR_CHARACTERS: Final = 8192
MAX_ATTRIBUTE_CHARACTERS: Final = 8192
MAX_NAME_CHARACTERS: Final = 500
MAX_STATUS_DIGITS: Final = 3

_SCHEMES: Final = re.compile(
    r"\b(?P<scheme>bearer|basic)(?P<space>[ \t]++[\u201c\u2018]?+)(?P<value>[\w.~+/=-]++)", re.IGNORECASE
)
_END_OF_AUTHORITY: Final = re.compile(r"[/?#]")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END_OF_KEY: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_LINE: Final = re.compile(r"[A-Za-z0-9+/=]{1,80}+")
_PUTTY_KEY: Final = re.compile(r"Private-Lines: [0-9]++")
_USERINFO: Final = re.compile(r"://(?P<rest>[^\s\"'<>|`]++)")
_PAIR: Final = re.compile(
    r"(?<![\w.%-])(?:(?P<option>-{1,2}[A-Za-z][\w.%-]*+)[ \t]++(?=[^\s=:])"
    r"|(?P<name>[\w.%-]++)(?P<quote>\\*+[\"']\]?+)?+"
    r"[ \t]*+(?::=|=>|[=:](?![=:]))(?P<space>[ \t]*+(?:\r?\n[ \t]*+-[ \t]++|[|>][+-]?+[ \t]*+\r?\n[ \t]++)?+))"
)
"""A name and what precedes its value: spaces after an option, else a separator."""


def redact(text: str) -> str:
    """Return `text` printable, bounded, and with every secret masked. A second call shows nothing more."""
    return _cached(text) if len(text) <= _SHORT else _redacted(text)


def redact_name(name: str) -> str:
    """Return the name of a step as `redact` does, in one line and of at most MAX_NAME_CHARACTERS characters."""
    redacted = redact(name)
    if len(redacted) <= MAX_NAME_CHARACTERS and redacted.isprintable():
        return redacted
    return bounded_text(redacted.replace("\n", "\\n").replace("\t", " "), MAX_NAME_CHARACTERS)


def redact_value(key: str, value: object) -> str | int | float | bool:
    """Return `value` as it may be shown under the name `key`; a secret that its name denotes is remembered."""
    printable = printable_value(value)
    if isinstance(printable, bool):
        return printable
    if is_secret_pair(key, str(printable)) and not (is_quantity(key) and isinstance(printable, int | float)):
        if isinstance(value, str) and is_secret_name(key):
            learn_secret(value)
        return printable if is_placeholder(str(printable)) else MASK
    return bounded_text(redact(printable), MAX_ATTRIBUTE_CHARACTERS) if isinstance(printable, str) else printable


def redact_attributes(attributes: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    """Return the attributes of a step as they may be shown, their names included."""
    return {redact_name(str(key)): redact_value(str(key), value) for key, value in attributes.items()}


def reason(event: StepFailed) -> str:
    """Return why a step failed, redacted, bounded and never empty."""
    if event.outcome == "cancelled":
        return "it was cancelled"  # the error's own text depends on the event loop
    try:
        message = str(event.error)
    except Exception:  # noqa: BLE001  # an error whose __str__ raises
        message = ""
    return bounded_text(redact(message), MAX_ERROR_CHARACTERS) or type(event.error).__name__


def redact_learning(text: str) -> str:
    """Return `text` as `redact` does, and remember the secrets in it: for an address, a header or a connection string."""
    return scan(mask_known(printable_text(text)), learn_secret)


def scan(text: str, found: Callable[[str], None] = lambda _: None) -> str:
    """Return `text` with credentials masked; `found` receives each."""
    if "://" in text:
        text = _USERINFO.sub(lambda match: f"://{_without_userinfo(match['rest'], found)}", text)
    text = _without_private_keys(text)
    text = without_credentials(text, found)
    if " -" in text:
        text = _without_command_secrets(text, found)
    text = without_notations(text, found)
    text = _without_pairs(text, found)
    return _SCHEMES.sub(lambda match: _scheme(match, found), text)


def _redacted(text: str) -> str:
    return scan(bounded_text(mask_known(printable_text(text))))


_SHORT: Final = 100
_cached = lru_cache(1024)(_redacted)
"""The same names and labels are redacted for every event."""
on_change(_cached.cache_clear)


def _masked(secret: str, found: Callable[[str], None]) -> str:
    found(secret)
    return MASK


def _without_userinfo(rest: str, found: Callable[[str], None]) -> str:
    """Return what follows ``://``, up to a space, without credentials; it may hold further addresses."""
    return "://".join(_without_credentials(address, found) for address in rest.split("://"))


def _without_credentials(rest: str, found: Callable[[str], None]) -> str:
    """Return an address, after its ``://``, without what precedes the last ``@`` of its user and password."""
    authority = _END_OF_AUTHORITY.split(rest, maxsplit=1)[0]
    user, colon, port = authority.partition(":")
    if "@" in authority:
        end = rest.rindex("@") if colon and "@" in port else authority.rindex("@")
    elif colon and port and "@" in rest and not port.isdigit() and not user.startswith("["):
        end = rest.rindex("@")  # a password with a slash
    else:
        return rest
    userinfo = rest[:end]
    if userinfo == MASK:
        return rest
    found(userinfo.partition(":")[2] or userinfo)
    return f"{MASK}{rest[end:]}"


def _without_command_secrets(text: str, found: Callable[[str], None]) -> str:
    parts, copied = [], 0
    for begin, end in secrets_of_text(text):
        value = text[begin:end]
        if not is_placeholder(value) and not value.startswith("$"):
            found(value)
            parts += [text[copied:begin], MASK]
            copied = end
    return "".join([*parts, text[copied:]])


def _without_private_keys(text: str) -> str:
    parts, at = [], 0
    while match := _PRIVATE_KEY.search(text, at):
        parts += [text[at : match.start()], MASK]
        end = text.find("-----END", match.end())
        closing = text.find("-----", end + 8) if end >= 0 else -1
        at = closing + 5 if closing >= 0 else len(text)
    text = _without_ends_of_keys("".join([*parts, text[at:]]))
    if (putty := _PUTTY_KEY.search(text)) is None:
        return text
    end = text.rfind("Private-MAC", putty.end())
    return f"{text[: putty.end()]}\n{MASK}\n{text[end:] if end >= 0 else ''}"


def _without_ends_of_keys(text: str) -> str:
    """Mask the last lines of a private key that began before `text`, such as before the last lines of a file."""
    parts, at = [], 0
    while match := _END_OF_KEY.search(text, at):
        begin = match.start()
        while begin > at and text[begin - 1] == "\n":
            line = text.rfind("\n", at, begin - 1) + 1 or at
            if not _KEY_LINE.fullmatch(text, line, begin - 1):
                break
            begin = line
        parts += [text[at:begin], MASK]
        at = match.end()
    return "".join([*parts, text[at:]])


def _without_pairs(text: str, found: Callable[[str], None]) -> str:
    parts, copied, at = [], 0, 0
    while match := _PAIR.search(text, at):
        at = match.end()
        if (secret := _secret_of(text, match)) is not None:
            begin, at = secret
            found(text[begin:at])
            parts += [text[copied:begin], MASK]
            copied = at
    return "".join([*parts, text[copied:]])


def _secret_of(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    """Return where the secret of a pair begins and ends; None if it is no secret."""
    name = (match["option"] or match["name"]).strip(".")
    in_query = match.start() > 0 and text[match.start() - 1] in "?&"
    is_connection_string = name == "PWD" and text[match.start() - 1 : match.start()] == ";"
    is_secret = (
        is_secret_query(name)
        if in_query
        else is_secret_name(name) or is_connection_string or _is_qualified(text, match, is_key_qualifier)
    )
    if not is_secret and (
        not name.lower().endswith(AMBIGUOUS_WORDS) or _is_qualified(text, match, HARMLESS_KEYS.__contains__)
    ):
        return None
    if is_secret:
        begin, end = end_of_value(text, match.end(), name, in_query=in_query)
    else:  # the text behind may have further pairs: it is read no further than a generated value can be
        after = text[match.end() : match.end() + MAX_GENERATED + 2]
        begin, end = (match.end() + at for at in end_of_value(after, 0, name, in_query=False))
    value = text[begin:end]
    if not is_secret and not is_secret_pair(name, value):
        return None
    if name.endswith("signature") and value.startswith("("):  # of a function
        return None
    if value == MASK or is_placeholder(value) or (is_numeral(value) and is_quantity(name)):
        return None
    if in_query and value.isdigit() and len(value) <= MAX_STATUS_DIGITS:
        return None
    is_spaced = (match["option"] or match["space"]) and begin == match.end()
    if is_spaced and is_prose(value, most=MAX_FLAG_WORD if match["option"] else None):
        return None
    return begin, end


def _is_qualified(text: str, match: re.Match[str], qualifies: Callable[[str], bool]) -> bool:
    """Return whether the pair's name is "key" and the word before it `qualifies`: ``API key: X``."""
    if (match["name"] or "").lower() not in ("key", "keys"):
        return False
    return any(qualifies(word.lower()) for word in text[max(0, match.start() - 16) : match.start()].split()[-1:])


def _scheme(match: re.Match[str], found: Callable[[str], None]) -> str:
    value = match["value"]
    is_word = value.isalpha() and (value.islower() or value.istitle()) and len(value) < 24
    if len(value) < 6 or is_word:
        return match[0]
    return f"{match['scheme']}{match['space']}{_masked(value, found)}"
