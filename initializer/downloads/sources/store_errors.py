"""What a store states with an error, read from the message of obstore."""

from __future__ import annotations

import re
from typing import Final

from phasebus.telemetry.redaction import redact

STATUS: Final = re.compile(r"status code: (?P<status>\d{3})\b|\b(?P<reason>\d{3}) [A-Z][A-Za-z ]+:")
"""The HTTP status in the message of an obstore error; obstore has error classes for the most common statuses only."""

LISTING: Final = "list request"
"""What the message of obstore has for a listing; its class is a general one then."""

_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<\n]{1,300})")
"""The cause that a store states with an error status, for programs and for people."""


def is_denied(error: Exception) -> bool:
    """Return whether an error of obstore is that of missing permissions."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    line = str(error).partition("\n")[0]
    refused = STATUS.search(line) if LISTING in line else None
    status = refused and (refused["status"] or refused["reason"])
    return isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in {"401", "403"}


def statement(text: str) -> tuple[str, str]:
    """Return the code that a store states with an error, and the code with its message for the end of ours."""
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if code is None:
        return "", ""
    return code[1], f" ({code[1]}{': ' + redact(message[1].strip()) if message is not None else ''})"
