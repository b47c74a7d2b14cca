"""Removal of secrets, and of what cannot be printed, from everything that leaves the process.

Structured values are redacted where they are parsed: by name, and by the form of addresses, headers and arguments. A value
found that way is remembered and masked wherever it appears later. Free text is scanned last, for names and known forms.
"""

from phasebus.printable import printable_number
from phasebus.telemetry.redaction.known import MASK, forget_secrets, learn_secret
from phasebus.telemetry.redaction.lines import LineRedactor
from phasebus.telemetry.redaction.names import is_secret_name
from phasebus.telemetry.redaction.structures import (
    learn_data,
    learn_environment,
    learn_url,
    redact_arguments,
    redact_data,
)
from phasebus.telemetry.redaction.text import (
    MAX_ATTRIBUTE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    reason,
    redact,
    redact_attributes,
    redact_name,
    redact_value,
)

__all__ = [
    "MASK",
    "MAX_ATTRIBUTE_CHARACTERS",
    "MAX_NAME_CHARACTERS",
    "LineRedactor",
    "forget_secrets",
    "is_secret_name",
    "learn_data",
    "learn_environment",
    "learn_secret",
    "learn_url",
    "printable_number",
    "reason",
    "redact",
    "redact_arguments",
    "redact_attributes",
    "redact_data",
    "redact_name",
    "redact_value",
]
