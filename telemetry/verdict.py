"""What a start does, how long it still takes, and the one step to look at: the words of the terminal and of the page.

The page follows the same rules, in ``service/page/verdict.js``: a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from phasebus.telemetry.formatting import format_duration, format_step

Step = Mapping[str, Any]
"""A step in the form of `Timeline.state`."""

SLOW_FACTOR: Final = 1.5
SLOW_SECONDS: Final = 5.0
"""A running step is slower than usual beyond the range of the usual durations, this factor and this difference."""

FATAL_KINDS: Final = ("cluster", "node", "phase", "engine", "engine_step")
"""The kinds of step whose failure fails the step around it. Others may be tried again."""

_MOST_ANCESTORS: Final = 64
_WAIT: Final = "wait for "
_NUMBER: Final = re.compile(r"[\d_:-]*(TP|PP|DP)?\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The state of a start.

    Attributes:
        state: ``waiting``, ``starting``, ``slow``, ``stuck``, ``failed``, ``cancelled`` or ``ready``.
        words: The state in words, such as ``1 of 500 nodes failed``.
        step: The one step to look at; None if there is none.
        reason: Why it is that one.
        is_over: Whether the start has ended.
    """

    state: str
    words: str
    step: Step | None = None
    reason: str = ""
    is_over: bool = False


def verdict(steps: Mapping[str, Step], now: float, stuck: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """Return the state of a start.

    Args:
        steps: Its steps by id, in the form of `Timeline.state`.
        now: The time, in seconds since the epoch.
        stuck: The steps that are stuck, the one that the others wait for first.
    """
    roots = [step for step in steps.values() if step.get("parent") not in steps]
    restarts = [step for step in roots if step["kind"] == "engine_restart" and step["outcome"] != "finished"]
    root = (restarts[-1:] or roots[:1] or (None,))[0]
    if root is None:
        return Verdict(state="waiting", words="Waiting for the first step")
    causes = _causes(steps)
    cause = next((step for step in causes if step["outcome"] != "cancelled"), None)
    some = _failed_nodes(steps, causes)
    if _has_failed(root):
        state = "cancelled" if root["outcome"] == "cancelled" and cause is None else "failed"
        step = causes[0] if causes else root
        return Verdict(
            state=state, words=some or _sentence(root["outcome"]), step=step, reason=_error(step), is_over=True
        )
    if root["outcome"] == "finished":
        if cause is not None:
            words = f"Ready, {some}" if some else "Ready"
            return Verdict(state="failed", words=words, step=cause, reason=_error(cause), is_over=True)
        return Verdict(state="ready", words="Ready", is_over=True)
    if cause is not None:
        return Verdict(state="failed", words=some or "Failing", step=cause, reason=_error(cause))
    known = [each for each in stuck if each.get("step") in steps] or list(stuck)
    if known:
        return Verdict(state="stuck", words="Stuck", step=steps.get(known[0]["step"]), reason=str(known[0]["reason"]))
    leaves = _running_leaves(steps)
    if slow := _step_to_look_at([step for step in leaves if _is_slow(step, steps, now)], steps):
        return Verdict(state="slow", words="Slower than usual", step=slow, reason=_duration(slow, steps, now))
    step_ = _step_to_look_at(leaves, steps)
    words = "Restarting" if root["kind"] == "engine_restart" else "Starting"
    return Verdict(state="starting", words=words, step=step_, reason=_duration(step_, steps, now) if step_ else "")


def describe_remaining(remaining: Mapping[str, Any] | None) -> str:
    """Return the time remaining in words: ``about 14 s left (11 s to 21 s)``; ``""`` if it is unknown."""
    if not remaining:
        return ""
    if remaining["high"] <= 0:
        return "usually ready by now"
    seconds, low, high = (round(remaining[name]) for name in ("seconds", "low", "high"))
    spread = f"{format_duration(low)} to {format_duration(high)}" if low else f"at most {format_duration(max(1, high))}"
    return f"about {format_duration(max(1, seconds))} left ({spread})"


def describe(found: Verdict, remaining: Mapping[str, Any] | None = None, *, with_node: bool = False) -> str:
    """Return a verdict in one line: its state, the time remaining, the step to look at and why.

    Args:
        found: The verdict.
        remaining: The time remaining until the start is ready; None if unknown.
        with_node: Whether the node of the step is named.
    """
    left = describe_remaining(remaining) if found.state in ("starting", "slow") else ""
    text = f"{found.words}, {left}" if left else found.words
    if found.step is None:
        return f"{text}: {found.reason}" if found.reason else text
    name = format_step(found.step, found.step["node"] if with_node else "")
    name = name.removeprefix(_WAIT) if found.state == "starting" else name
    return f"{text}: {'it waits for' if found.state == 'starting' else 'look at'} {name}, {found.reason}"


def _expected(step: Step, steps: Mapping[str, Step]) -> Step | None:
    """Return the nearest step with a usual duration: `step`, or one that contains it."""
    at: Step | None = step
    for _ in range(_MOST_ANCESTORS):
        if at is None or at.get("usual"):
            break
        at = steps.get(at.get("parent", ""))
    return at if at is not None and at.get("usual") else None


def _is_slow(step: Step, steps: Mapping[str, Step], now: float) -> bool:
    expected = _expected(step, steps)
    if expected is None or expected["outcome"] != "running":
        return False
    usual = expected["usual"]
    longest = max(usual["high"], SLOW_FACTOR * usual["seconds"], usual["seconds"] + SLOW_SECONDS)
    return bool(now - expected["start"] > longest)


def _has_failed(step: Step) -> bool:
    return step["outcome"] not in ("running", "finished")


def _causes(steps: Mapping[str, Step]) -> list[Step]:
    """Return the failed steps that are reasons themselves: without a failed one inside, and not overcome by the outer one."""
    with_failed = {step.get("parent") for step in steps.values() if _has_failed(step)}

    def counts(step: Step) -> bool:
        outer = steps.get(step.get("parent", ""))
        if outer is None or step["kind"] == "node":
            return True
        return step["kind"] in FATAL_KINDS if outer["outcome"] == "running" else _has_failed(outer)

    found = [step for step in steps.values() if _has_failed(step) and step["id"] not in with_failed and counts(step)]
    return sorted(found, key=lambda step: (step["outcome"] == "cancelled", step.get("end", 0.0)))


def _running_leaves(steps: Mapping[str, Step]) -> list[Step]:
    outer = {step.get("parent") for step in steps.values() if step["outcome"] == "running"}
    return [step for step in steps.values() if step["outcome"] == "running" and step["id"] not in outer]


def _step_to_look_at(leaves: Iterable[Step], steps: Mapping[str, Step]) -> Step | None:
    """Return the running step that the others wait for.

    In each node, of the processes of a family (the workers), it is the step that began first, and of the families the one
    that began last, because outer processes wait for inner ones. Of several nodes, it is the one that began first.
    """
    nodes: dict[str, dict[str, Step]] = {}
    for leaf in leaves:
        step = _shown_for(leaf, steps)
        families = nodes.setdefault(step["node"], {})
        family = _NUMBER.sub("", str(step.get("attributes", {}).get("process", "")))
        if family not in families or step["start"] < families[family]["start"]:
            families[family] = step
    of_nodes = [max(families.values(), key=lambda step: step["start"]) for families in nodes.values()]
    return min(of_nodes, key=lambda step: step["start"], default=None)


def _shown_for(step: Step, steps: Mapping[str, Step]) -> Step:
    """Return the step with the progress of all parts: for a file, its download."""
    for _ in range(_MOST_ANCESTORS):
        outer = steps.get(step.get("parent", ""))
        if outer is None or outer.get("done") is None:
            break
        step = outer
    return step


def _failed_nodes(steps: Mapping[str, Step], causes: Iterable[Step]) -> str | None:
    nodes = sum(step["kind"] == "node" for step in steps.values())
    failed = {step["node"] for step in causes if step["outcome"] != "cancelled"}
    return f"{len(failed)} of {nodes} nodes failed" if nodes > 1 and failed else None


def _duration(step: Step, steps: Mapping[str, Step], now: float) -> str:
    text = f"{format_duration(max(0.0, now - step['start']))} so far"
    expected = _expected(step, steps)
    if expected is None or expected["kind"] in ("cluster", "node"):
        return text
    usual = format_duration(expected["usual"]["seconds"])
    return f"{text}, usually {usual}" if expected is step else f"{text}; {format_step(expected)} usually takes {usual}"


def _error(step: Step) -> str:
    return str(step.get("error") or "no reason is given").partition("\n")[0]


def _sentence(text: str) -> str:
    return text.replace("_", " ").capitalize()
