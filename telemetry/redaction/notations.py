"""Secrets in free text in other notations than a name, a separator and a value: markup, lists, calls, options, prose.

As in `text`, every pattern matches in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from phasebus.telemetry.redaction.known import MASK
from phasebus.telemetry.redaction.names import HARMLESS_KEYS, is_quantity, is_secret_pair
from phasebus.telemetry.redaction.values import is_numeral, is_placeholder, is_prose

_SHORTEST_RANDOM: Final = 12
_PROSE_WORDS: Final = ("token", "key", "apikey", "secret", "password", "passphrase", "credential")
_NO_HARMLESS_KEY: Final = "".join(f"(?<!{word} key)" for word in sorted(HARMLESS_KEYS))


class _Notation(NamedTuple):
    """A notation.

    Attributes:
        signs: A text with the notation has one of them, in lower case; they are looked for first.
        pattern: Matches a ``value``, and the ``name`` that says whether it is a secret if there is one.
        accepts: Whether a value under a secret name is a secret.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    accepts: Callable[[str], bool] = lambda value: True


def without_notations(text: str, found: Callable[[str], None]) -> str:
    """Return `text` with the secrets masked that it has in one of the notations; `found` receives each."""
    lowered = text.lower()
    for notation in _NOTATIONS:
        for sign in notation.signs:  # a loop takes half the time of any()
            if sign in lowered:
                text = notation.pattern.sub(lambda match, notation=notation: _masked(match, notation, found), text)  # type: ignore[misc]
                break
    return text


def _masked(match: re.Match[str], notation: _Notation, found: Callable[[str], None]) -> str:
    value = match["value"]
    if MASK[:-1] in value or is_placeholder(value) or not notation.accepts(value):
        return match[0]
    name = match["name"] if "name" in notation.pattern.groupindex else None
    if name is not None and (not is_secret_pair(name, value) or (is_quantity(name) and is_numeral(value))):
        return match[0]
    found(value)
    start, end = match.start("value") - match.start(), match.end("value") - match.start()
    return f"{match[0][:start]}{MASK}{match[0][end:]}"


def _is_no_word(value: str) -> bool:
    """Return whether `value` is no word, number, name of a field or placeholder."""
    return value[0] not in "<$" and _has_other_characters(value)


def _has_other_characters(value: str) -> bool:
    return len(value) > 30 or not (
        value.replace("_", "").replace("-", "").isalpha() or value.isdigit() or is_prose(value)
    )


def _has_letters_and_digits(value: str) -> bool:
    """Return whether `value` is no word and no number, and no name of an algorithm such as sha256."""
    has_both = any(map(str.isalpha, value)) and any(map(str.isdigit, value))
    return (
        len(value) >= 6
        and has_both
        and not value.lower().startswith(("sha", "md5", "base64", "utf", "bcrypt", "argon"))
    )


def _is_random(value: str) -> bool:
    """Return whether `value` looks generated: letters of both cases and digits, or many hexadecimal digits."""
    if len(value) < _SHORTEST_RANDOM or value.startswith("/") or value.count("/") > 2:
        return False
    if not any(each.isdigit() for each in value):
        return False
    if any(each.islower() for each in value) and any(each.isupper() for each in value):
        return True
    return len(value) >= 24 and all(each in "0123456789abcdefABCDEF" for each in value)


_NOTATIONS: Final = (
    _Notation(
        ("</",),  # <SecretAccessKey>X</SecretAccessKey>
        re.compile(
            r"<(?:[A-Za-z][\w.-]*+:)?+(?P<name>[A-Za-z][\w.-]*+)(?:[ \t][^<>\n]{0,200}+)?+>(?P<value>[^<>]++)(?=</)"
        ),
    ),
    _Notation(
        ("value",),  # name: X, value: Y in YAML, JSON, markup and representations
        re.compile(
            r"(?<![A-Za-z])(?:name|key)\\*+[\"']?+[ \t]*+[=:][ \t]*+\\*+[\"']?+(?P<name>[\w.-]++)\\*+[\"']?+"
            r"(?:[ \t,;]|\\n|\r?\n)*+\\*+[\"']?+value\\*+[\"']?+[ \t]*+[=:][ \t]*+"
            r"(?:\\*+[\"'])?+(?P<value>[^\s\"'\\,;<>}\])]++)",
            re.IGNORECASE,
        ),
    ),
    _Notation(
        ("value",),  # value: X, name: Y
        re.compile(
            r"(?<![A-Za-z])value\\*+[\"']?+[ \t]*+[=:][ \t]*+(?:\\*+(?P<quote>[\"']))?+"
            r"(?P<value>(?(quote)[^\"'\\\n]++|[^\s\"'\\,;<>}\])=:]++={0,2}+))\\*+[\"']?+(?:[ \t,;]|\\n|\r?\n)*+"
            r"\\*+[\"']?+(?:name|key)\\*+[\"']?+[ \t]*+[=:][ \t]*+\\*+[\"']?+(?P<name>[\w.-]++)",
            re.IGNORECASE,
        ),
    ),
    _Notation(
        ("</key>", "</name>"),  # <key>X</key><value>Y</value>, also of a property list
        re.compile(
            r"<(?:key|name)>\s*+(?P<name>[\w.-]++)\s*+</(?:key|name)>\s*+<(?:value|string)>(?P<value>[^<>]++)(?=</)",
            re.IGNORECASE,
        ),
    ),
    _Notation(
        ("</key>", "</name>"),  # <value>X</value><key>Y</key>
        re.compile(r"<value>(?P<value>[^<>]++)</value>\s*+<(?:key|name)>\s*+(?P<name>[\w.-]++)\s*+</", re.IGNORECASE),
    ),
    _Notation(
        ("',", '",'),  # ('authorization', 'X'), and arguments as a list
        re.compile(
            r"(?P<quote>[\"'])(?P<name>-{0,2}[A-Za-z][\w.-]*+)(?P=quote)[ \t]*+,[ \t\r\n]*+[bru]?+"
            r"[\"'](?P<value>[^\"'\\\n]++)"
        ),
        _is_no_word,
    ),
    _Notation(
        ("--",),  # options and values in a list of YAML, a line each, or as /proc/PID/cmdline has them
        re.compile(
            r"(?:(?<![\w-])|(?<=\\x00)|(?<=\\0))(?P<name>--[A-Za-z][\w-]*+)"
            r"(?:,[ \t]*+|\\(?:x00|0)|(?:\r?\n|\\n)[ \t]*+(?:-[ \t]++)?+)"
            r"(?P<value>[^\s\"',;\\\[\]-][^\s\"',;\\\[\]]*+)"
        ),
        _is_no_word,
    ),
    _Notation(
        ("('", '("', "(value"),
        re.compile(r"(?<![\w.])(?P<name>\w++)\((?:value[ \t]*+=[ \t]*+)?+[\"'](?P<value>[^\"'\\\n]++)"),
        _is_no_word,
    ),
    _Notation(("\t",), re.compile(r"(?<![\w.-])(?P<name>[\w.-]++)\t[ \t]*+(?P<value>[^\s\"'\[\]]++)"), _is_no_word),
    _Notation(
        ("env",), re.compile(r"\b(?:ENV|setenv)[ \t]++(?P<name>\w++)[ \t]++(?P<value>[^\s\"'\[\]]++)"), _is_no_word
    ),
    _Notation(
        ("  ", "|", "│", "┃", "->", "→", "</t", "]=", "] ="),  # variables in a table, or assigned by their names
        re.compile(
            r"(?<![\w.-])(?P<name>[A-Z][A-Z0-9]*+(?:_[A-Z0-9]++)++)"
            r"(?:[ \t]{2,}+|[ \t]*+(?:[|│┃→]|->|</t[dh]>\s*+<t[dh]>|\][ \t]*+=)[ \t]*+)(?P<value>[^\s\"'|│┃<>=\[\]]++)"
        ),
        _is_no_word,
    ),
    _Notation(
        ("password-stdin",),  # docker login --password-stdin <<< X
        re.compile(r"--password-stdin[^\n|<]{0,80}+<<<[ \t]*+[\"']?+(?P<value>[^\s\"']++)"),
        _is_no_word,
    ),
    _Notation(
        ("password-stdin",),  # echo X | docker login --password-stdin
        re.compile(
            r"\becho[ \t]++(?:-n[ \t]++)?+[\"']?+(?P<value>[^\s\"'|]++)(?=[\"']?+[ \t]*+\|[^|\n]{0,80}--password-stdin)"
        ),
        _is_no_word,
    ),
    _Notation(
        ("password",),  # .netrc
        re.compile(r"(?<![\w-])(?:login|user)\s++[^\s\"']++\s++password[ \t]++(?P<value>[^\s\"'\[\]]++)"),
        _is_no_word,
    ),
    _Notation(
        ("password",),  # a line of .netrc whose password is a word
        re.compile(
            r"(?<![\w-])(?:machine\s++[^\s\"']++|default)\s++login\s++[^\s\"']++\s++password\s++(?P<value>[^\s\"'\[\]]++)"
        ),
    ),
    _Notation(
        ("password '", "secret '", "by '"),  # SQL
        re.compile(
            r"\b(?:(?:WITH (?:ENCRYPTED )?)?PASSWORD|IDENTIFIED (?:WITH \w++ )?BY|SECRET)[ \t]++'(?P<value>[^'\n\[\]]++)'"
        ),
    ),
    _Notation(
        ("password is ", "password was "),
        re.compile(r"\bpassword (?:is|was) [\"'`]?+(?P<value>[^\s\"'`,\[\]]++)", re.IGNORECASE),
        _has_letters_and_digits,
    ),
    _Notation(
        ("pin code", "otp code", "verification code", "security code", "recovery code", "one-time code"),
        re.compile(
            r"\b(?:pin|otp|verification|security|recovery|one-time) code(?: is|:)?+ \"?+(?P<value>[0-9]{4,8}+)\b",
            re.IGNORECASE,
        ),
    ),
    _Notation(  # me:X@tcp(host:3306)/database
        ("@tcp(", "@unix("),
        re.compile(r"(?<![\w.-])[\w.-]++:(?P<value>[^\s@:/\"'\[\]]++)@(?:tcp|unix)\("),
    ),
    _Notation(("<cookie ",), re.compile(r"<Cookie [^\s=<>]++=(?P<value>[^\s<>]++) for ")),  # of http.cookiejar
    _Notation(
        ("%40",),  # https://me:X@host, quoted for an address
        re.compile(r"%3A%2F%2F[\w.+~-]*+%3A(?P<value>(?:(?!%40)[^\s&\"'])++)(?=%40)", re.IGNORECASE),
    ),
    _Notation(
        ("->",), re.compile(r"(?<![\w.-])(?P<name>[\w.-]++)[ \t]*+->[ \t]*+(?P<value>[^\s\"'\[\]]++)"), _is_random
    ),
    _Notation(
        ("-u", "user"),  # curl -u me:X
        re.compile(r"(?<![\w-])(?:-u|--user|--proxy-user)(?:[ \t]++|=)[\"']?+[^\s:/\"']++:(?P<value>[^\s\"'\[\]]++)"),
        lambda value: not value.isdigit(),
    ),
    _Notation((".atlasv1.",), re.compile(r"\.atlasv1\.(?P<value>[\w-]{20,}+)")),  # Terraform
    _Notation(
        ("login",),  # wandb login X
        re.compile(r"\blogin[ \t]++(?:--relogin[ \t]++)?+(?P<value>[^\s\"'\[\]-][^\s\"'\[\]]++)"),
        _is_random,
    ),
    _Notation(
        ("requirepass", "masterauth", "unseal key", "jdbc:oracle"),
        re.compile(
            r"(?:\b(?:requirepass|masterauth)[ \t]++|\bunseal key [0-9]++:[ \t]*+|\bjdbc:oracle:\w++:[^/\s@:\[\]]++/)"
            r"(?P<value>[^\s@\[\]]++)",
            re.IGNORECASE,
        ),
    ),
    _Notation(
        ("password for ", "token for ", "key for "),  # Password for user me is X
        re.compile(
            r"\b(?:password|token|key) for (?:user )?+[\"']?+[\w.@/-]++[\"']?+(?: is |: ?+)[\"'*]*+(?P<value>[^\s\"'*,\[\]]++)",
            re.IGNORECASE,
        ),
        _is_no_word,
    ),
    _Notation(
        ("%3",),  # quoted for an address
        re.compile(r"(?<![\w.-])(?P<name>[\w.-]++)(?:%22)?+%3[ADad](?:%20|\+)?+(?:%22)?+(?P<value>[^%&\s\"'<>\[\]]++)"),
    ),
    _Notation(
        _PROSE_WORDS,  # Incorrect API key provided: X
        re.compile(
            rf"(?<![A-Za-z])(?:{'|'.join(_PROSE_WORDS)}){_NO_HARMLESS_KEY}s?+"
            r"(?:[ \t:]++(?:is|was|are|set|to|provided|passed|given|value|of|with|for)\b)*+"
            r"[ \t:]++[\"'`]?+(?P<value>[\w+/=~-]{12,}+)(?!\w|\.\w)",
            re.IGNORECASE,
        ),
        _is_random,
    ),
)
