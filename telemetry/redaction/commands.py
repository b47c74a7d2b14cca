"""Options whose values are secrets, of commands that are known: ``sshpass -p X``, ``ldapsearch -w X``, ``curl -u me:X``.

A short option means something else in every command, so only the commands of `_COMMANDS` are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_NEXT_COMMAND: Final = frozenset({"|", "||", "&&", "&", ";", "then", "do"})
_SETTERS: Final = frozenset({"set", "setenv", "config"})


@dataclass(frozen=True, slots=True)
class _Command:
    """The secret options of a command.

    Attributes:
        options: The options whose values are secrets.
        parts: Those whose values are secret behind a separator, and the separator.
        after: A word of the arguments, without which the options have another meaning.
        joins: Whether a value may stand behind its option without a space.
        separates: Whether a value may be the next argument.
    """

    options: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    after: str = ""
    joins: bool = True
    separates: bool = True


_LOGIN: Final = _Command(("-p",), after="login")
_LDAP: Final = _Command(("-w",))
_MYSQL: Final = _Command(("-p",), separates=False)
_MONGO: Final = _Command(("-p",))
_ZIP: Final = _Command(("-P",))
_REDIS: Final = _Command(("-a",), joins=False)

_COMMANDS: Final = {
    "sshpass": _Command(("-p",)), "twine": _Command(("-p",)), "cqlsh": _Command(("-p",)), "sqlcmd": _Command(("-P",)),
    "curl": _Command(parts={"-u": ":", "-U": ":", "-b": "="}), "ipmitool": _Command(("-P",)),
    "openssl": _Command(("-k", "-K", "-pass", "-passin", "-passout"), joins=False),
    "mosquitto_pub": _Command(("-P",)), "mosquitto_sub": _Command(("-P",)),
    "zip": _ZIP, "unzip": _ZIP, "redis-cli": _REDIS, "valkey-cli": _REDIS,
    "7z": _MYSQL, "7za": _MYSQL, "7zr": _MYSQL, "mysql": _MYSQL, "mysqldump": _MYSQL, "mysqladmin": _MYSQL, "mariadb": _MYSQL,
    "mariadb-dump": _MYSQL, "mariadb-admin": _MYSQL,
    "mongo": _MONGO, "mongosh": _MONGO, "mongodump": _MONGO, "mongorestore": _MONGO, "mongoimport": _MONGO, "mongoexport": _MONGO,
    "ldapsearch": _LDAP, "ldapmodify": _LDAP, "ldapadd": _LDAP, "ldapdelete": _LDAP, "ldapwhoami": _LDAP, "ldappasswd": _LDAP,
    "docker": _LOGIN, "podman": _LOGIN, "nerdctl": _LOGIN, "buildah": _LOGIN, "skopeo": _LOGIN, "oras": _LOGIN, "helm": _LOGIN,
    "crane": _LOGIN, "az": _LOGIN,
}  # fmt: skip

_NAME: Final = re.compile(rf"(?<![\w.-])(?:{'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?=[ \t])")
_ARGUMENT: Final = re.compile(r"(?:'[^'\n]*+'|\"[^\"\n]*+\"|[^\s'\"])++")


def secrets_of_arguments(arguments: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the index of each argument with a secret of a known command, and where in it the secret begins.

    An option counts once for each command: ``sshpass -p X ssh -p 22``.
    """
    command, left, is_apt, awaited = _Command(), set[str](), False, ""
    for index, argument in enumerate(arguments):
        if awaited:
            if (begin := _behind(argument, 0, command.parts.get(awaited))) >= 0:
                yield index, begin
            awaited = ""
        elif argument in _NEXT_COMMAND:
            left = set()
        elif found := _COMMANDS.get(argument.rpartition("/")[2]):
            command, left, is_apt = found, {*found.options, *found.parts}, not found.after
        elif argument == command.after:
            is_apt = True
        elif is_apt and (option := _option(argument, left, joins=command.joins)):
            left.discard(option)
            begin = len(option) + (argument[len(option) : len(option) + 1] == "=")
            if argument == option:
                awaited = option if command.separates else ""
            elif (begin := _behind(argument, begin, command.parts.get(option))) >= 0:
                yield index, begin


def secrets_of_text(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the secrets in each line of `text` with a known command begin and end."""
    at = 0
    while match := _NAME.search(text, at):
        end = text.find("\n", match.start())
        at = end if end >= 0 else len(text)
        words = [_unquoted(text, *word.span()) for word in _ARGUMENT.finditer(text, match.start(), at)]
        for index, begin in secrets_of_arguments([text[start:stop] for start, stop in words]):
            yield words[index][0] + begin, words[index][1]


def is_setting(arguments: Sequence[str], index: int) -> bool:
    """Return whether the argument is the value of a setting whose name precedes it: ``aws configure set NAME VALUE``."""
    return index > 1 and arguments[index - 2] in _SETTERS


def _option(argument: str, left: set[str], *, joins: bool) -> str:
    """Return the option of `left` that `argument` is, or begins with; "" if there is none."""
    name = argument.partition("=")[0]
    if name in left:
        return name
    return argument[:2] if joins and argument[:2] in left else ""


def _behind(argument: str, begin: int, separator: str | None) -> int:
    """Return where the secret in an argument begins; -1 if it has none."""
    at = begin if separator is None else argument.find(separator, begin) + 1
    return at if at < len(argument) and (separator is None or at) else -1


def _unquoted(text: str, start: int, stop: int) -> tuple[int, int]:
    is_quoted = stop - start > 1 and text[start] == text[stop - 1] and text[start] in "'\""
    return (start + 1, stop - 1) if is_quoted else (start, stop)
