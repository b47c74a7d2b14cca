"""What is wrong with the OTEL_* variables, collected while they are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from phasebus.telemetry.redaction import redact


@dataclass(slots=True)
class Findings:
    """What is wrong with the variables of an environment.

    Attributes:
        problems: One line each: the value, why it cannot be used, and what is used instead.
        repairs: Valid values for variables that the SDK would reject, for the environment of other processes.
        rejected: The variables with such values, which the SDK must not read in this process either.
    """

    problems: list[str] = field(default_factory=list)
    repairs: dict[str, str] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set, compare=False)

    def reject(self, name: str, value: str, why: str, used: str, repair: str | None = None) -> None:
        """Note that the variable `name` cannot have this value, what is used instead, and what the SDK accepts."""
        self.problems.append(f"{name} is {redact(value[:200])!r}; {why}. {used} is used")
        self.rejected.add(name)
        if repair is not None:
            self.repairs[name] = repair
