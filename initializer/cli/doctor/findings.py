"""The findings of `phasebus doctor`, and their output as text and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, NoReturn

from phasebus.initializer.cli.output import indented, write_out
from phasebus.printable import printable_text

Level = Literal["ok", "note", "fix"]

_NAME_WIDTH: Final = 36
"""The most columns for names. A longer one, such as the path of a model, has a line of its own."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was checked: ``versions``, ``plugin``, ``variables``, ``ports``, …
        name: The checked part of the topic.
        value: The result; secrets are masked.
        level: ``ok``; ``note`` for a possible surprise; ``fix`` for a problem that prevents phasebus from working.
        advice: How to solve it; empty if there is nothing to do.
    """

    topic: str
    name: str
    value: str
    level: Level = "ok"
    advice: str = ""


def print_and_exit(findings: Sequence[Finding], *, as_data: bool) -> NoReturn:
    """Print the findings and end the process: with the exit code 1 if there is a problem, else 0.

    Args:
        findings: The findings; at least one.
        as_data: Whether to print them as one JSON object, with the number of problems.
    """
    fixes = sum(finding.level == "fix" for finding in findings)
    if as_data:
        write_out(json.dumps({"findings": as_json(findings), "to_fix": fixes}, indent=2))
    else:
        for line in as_lines(findings):
            write_out(line)
    sys.exit(1 if fixes else 0)


def as_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return the findings as data for JSON."""
    return [asdict(finding) for finding in findings]


def as_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of the report: one per finding, its advice below it, and the number of problems at the end.

    Names and values may be those of a file or the environment, so a control character is escaped, and a further line indented.
    """
    for line in _lines(findings):
        yield indented(printable_text(line), 4)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    width = max((len(finding.name) for finding in findings if len(finding.name) <= _NAME_WIDTH), default=0)
    topic = None
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            yield topic
        mark = {"ok": " ", "note": "-", "fix": "!"}[finding.level]
        if len(finding.name) > _NAME_WIDTH:
            yield f" {mark} {finding.name}"
            yield f"   {'':<{width}}  {finding.value}"
        else:
            yield f" {mark} {finding.name:<{width}}  {finding.value}"
        if finding.advice:
            yield f"   {'':<{width}}  {finding.advice}"
    fixes = sum(finding.level == "fix" for finding in findings)
    yield "nothing to fix" if fixes == 0 else f"to fix: {fixes} (marked !)"
