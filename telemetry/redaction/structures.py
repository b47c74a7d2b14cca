"""Redaction of what has a structure: arguments, mappings, environments and addresses. The secrets found are remembered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

from phasebus.printable import bounded_text, printable_text, printable_value
from phasebus.telemetry.redaction.commands import is_setting, secrets_of_arguments
from phasebus.telemetry.redaction.known import MASK, learn_secret
from phasebus.telemetry.redaction.names import is_quantity, is_secret_name, is_secret_pair
from phasebus.telemetry.redaction.text import redact, redact_learning, redact_value
from phasebus.telemetry.redaction.values import is_numeral, is_placeholder

MAX_ARGUMENT_CHARACTERS: Final = 8192
MAX_DEPTH: Final = 20
MAX_ENTRIES: Final = 10_000

_HEADER_OPTIONS: Final = ("-H", "--header", "--headers")
_USER_OPTIONS: Final = ("-u", "--user", "--proxy-user")
_ASSIGNMENT: Final = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*+)=(?P<value>.*)", re.DOTALL)


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command without their secrets.

    Masked are the values of secret options (``--api-key X``, ``--api-key=X``) and assignments (``HF_TOKEN=X``), secrets
    in headers (``-H 'Authorization: X'``), addresses and JSON, and those of commands that are known (``sshpass -p X``).
    """
    shown: list[str] = []
    of_commands = dict(secrets_of_arguments(arguments))
    option = ""  # the option whose values follow
    for index, argument in enumerate(arguments):
        if (begin := of_commands.get(index)) is not None:
            shown.append(f"{redact(argument[:begin])}{_mask(argument[begin:])}")
            option = ""
        elif is_setting(arguments, index) and _is_secret_text(arguments[index - 1], argument):
            shown.append(_mask(argument))
        elif argument.startswith("-") and len(argument) > 1:
            option = argument if "=" not in argument else ""
            shown.append(_redact_argument(argument))
        elif option and _is_secret_text(option.lstrip("-"), argument):
            shown.append(_mask(argument))
            if not option.endswith("key"):  # vLLM's --api-key has several values
                option = ""
        elif option in _USER_OPTIONS:
            user, colon, password = argument.partition(":")
            shown.append(f"{redact(user)}:{_mask(password)}" if colon else redact(argument))
            option = ""
        else:
            shown.append(_redact_argument(argument, is_header=option in _HEADER_OPTIONS))
    return shown


def redact_data(value: Any) -> Any:
    """Return plain data, such as of JSON, without its secrets."""
    return _redact_data("", value, 0)


def learn_data(value: Any) -> None:
    """Remember the secrets in a value: in mappings, sequences, dataclasses and pydantic models, by the names there.

    At most MAX_ENTRIES entries are read; an object that cannot be read is left out.
    """
    pending: list[tuple[str, Any, int]] = [("", value, 0)]
    for _ in range(MAX_ENTRIES):
        if not pending:
            return
        try:
            pending += _learn_one(*pending.pop())
        except Exception:  # noqa: BLE001, S112  # a foreign object whose attributes raise
            continue


def learn_environment(environment: Mapping[str, str]) -> None:
    """Remember the secrets in environment variables: by name, in addresses, and in lists of headers."""
    for name, value in environment.items():
        if _is_secret_text(name, value):
            _mask(value)
        elif name.startswith("OTEL_") and name.endswith("_HEADERS"):
            for header in value.split(","):
                header_name, _, header_value = header.partition("=")
                if is_secret_name(header_name) or "auth" in header_name.lower():
                    _mask(header_value)
        elif "://" in value:
            redact_learning(value[:MAX_ARGUMENT_CHARACTERS])


def learn_url(url: str) -> None:
    """Remember the password and the signed parameters of an address."""
    redact_learning(url[:MAX_ARGUMENT_CHARACTERS])


def _redact_argument(argument: str, *, is_header: bool = False) -> str:
    argument = argument[: 8 * MAX_ARGUMENT_CHARACTERS]
    assignment = _ASSIGNMENT.fullmatch(argument)
    name = assignment["name"] if assignment else ""
    value = assignment["value"] if assignment else argument
    if name and _is_secret_text(name, value):
        return f"{name}={_mask(value)}"
    if value.lstrip()[:1] in ("{", "[") and (as_json := _redact_json(value)) is not None:
        value = as_json
    elif is_header or "://" in value:
        value = redact_learning(value)
    return bounded_text(redact(f"{name}={value}" if name else value), MAX_ARGUMENT_CHARACTERS)


def _redact_json(text: str) -> str | None:
    """Return JSON without its secrets; None if it has none, or is no JSON."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    redacted = redact_data(data)
    return json.dumps(redacted, ensure_ascii=False) if redacted != data else None


def _redact_data(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(name, value):
        _learn_all(value, 0)
        return value if isinstance(value, str) and is_placeholder(value) else MASK
    if depth >= MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, str):
        return redact_learning(value) if "://" in value else redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): _redact_data(str(key), each, depth + 1) for key, each in _first(value.items())}
    if isinstance(value, list | tuple):
        return [_redact_data("", each, depth + 1) for each in _first(value)]
    return redact_value(name, value)


def _learn_one(name: str, value: Any, depth: int) -> list[tuple[str, Any, int]]:
    """Remember the secrets that `value` itself holds; return what is inside it, with names and depths."""
    inside: list[tuple[str, Any]] = []
    if value is None or isinstance(value, bool | type) or depth >= MAX_DEPTH:
        return []
    if _is_secret(name, value):
        _learn_all(value, 0)
    elif isinstance(value, str):
        if "://" in value:
            learn_url(value)
    elif isinstance(value, Mapping):
        inside = [(str(key), each) for key, each in _first(value.items())]
    elif isinstance(value, list | tuple | set | frozenset):
        inside = [("", each) for each in _first(value)]
    else:
        names = (
            [each.name for each in fields(value)] if is_dataclass(value) else getattr(type(value), "model_fields", ())
        )
        inside = [(each, getattr(value, each, None)) for each in names]
    return [(key, each, depth + 1) for key, each in inside]


def _is_secret(name: str, value: Any) -> bool:
    if not name or (is_quantity(name) and isinstance(value, int | float)):
        return False
    return is_secret_name(name) or (isinstance(value, str | int) and is_secret_pair(name, str(value)))


def _is_secret_text(name: str, value: str) -> bool:
    return is_secret_pair(name, value) and not (is_quantity(name) and is_numeral(value))


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(MAX_ENTRIES), strict=False)]


def _learn_all(value: Any, depth: int) -> None:
    """Remember every text in a value that its name denotes as a secret."""
    if isinstance(value, str):
        _mask(value)
    elif isinstance(value, bytes):
        learn_secret(value.decode("utf-8", "backslashreplace"))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        learn_secret(str(printable_value(value)))
    elif depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            value = value.values()
        if isinstance(value, Iterable):
            for each in _first(value):
                _learn_all(each, depth + 1)
        elif callable(getattr(value, "get_secret_value", None)):  # pydantic's SecretStr
            _learn_all(value.get_secret_value(), depth + 1)


def _mask(secret: str) -> str:
    """Remember a secret, with and without the scheme of an Authorization header; return the mask."""
    if is_placeholder(secret):
        return printable_text(bounded_text(secret))
    learn_secret(secret)
    scheme, space, credential = secret.strip().partition(" ")
    if space and scheme.isalpha():
        learn_secret(credential)
    return MASK
