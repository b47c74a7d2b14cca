"""What `phasebus doctor` finds, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "note", "fix"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was checked: ``versions``, ``plugin``, ``variables``, ``ports``, …
        name: What of it.
        value: What was found; secrets are masked.
        level: ``ok``; ``note`` for what may surprise; ``fix`` for what keeps phasebus from working.
        advice: What to do about it; empty where there is nothing to do.
    """

    topic: str
    name: str
    value: str
    level: Level = "ok"
    advice: str = ""


def as_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return the findings as JSON has them."""
    return [asdict(finding) for finding in findings]


def as_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the report: a line each, with the advice below, and the count of what to fix at the end."""
    width = max(len(finding.name) for finding in findings)
    topic = None
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            yield topic
        mark = {"ok": " ", "note": "-", "fix": "!"}[finding.level]
        yield f" {mark} {finding.name:<{width}}  {finding.value}"
        if finding.advice:
            yield f"   {'':<{width}}  {finding.advice}"
    fixes = sum(finding.level == "fix" for finding in findings)
    yield "nothing to fix" if fixes == 0 else f"to fix: {fixes} (marked !)"
