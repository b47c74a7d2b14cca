"""Redaction of text that arrives line by line: a private key has many lines, and only the first one names it."""

from __future__ import annotations

import re
from typing import Final

from phasebus.telemetry.redaction.known import MASK
from phasebus.telemetry.redaction.text import redact

MAX_KEY_LINES: Final = 200

_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: [0-9]++\s*+$")
_END: Final = re.compile(r"-----END |Private-MAC")
_BODY: Final = re.compile(
    r"(?:\([^()]{1,80}\) )?"  # vLLM's prefix of each line: (EngineCore pid=7)
    r"(?:[A-Za-z0-9+/=_-]*+|(?:Proc-Type|DEK-Info|Comment|Version|Hash): .*)\s*+"
)


class LineRedactor:
    """Redacts one line after the other, as `redact` does the whole text."""

    def __init__(self) -> None:
        self._key_lines = 0  # how many further lines may be part of a private key

    def __call__(self, line: str) -> str:
        """Return `line` without its secrets; a line of a private key is masked whole."""
        if self._key_lines:
            self._key_lines -= 1
            if _END.search(line):
                self._key_lines = 0
                return MASK
            if _BODY.fullmatch(line):
                return MASK
            self._key_lines = 0
        begin = _BEGIN.search(line)
        if begin is not None and not _END.search(line, begin.end()):
            self._key_lines = MAX_KEY_LINES
        return redact(line)
