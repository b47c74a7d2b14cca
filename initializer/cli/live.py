"""The steps of a start as a live tree on a terminal. A running step shows its inner steps; a finished one is one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text
from rich.tree import Tree

from phasebus.telemetry.formatting import format_duration, format_progress, format_title
from phasebus.telemetry.redaction import redact
from phasebus.telemetry.verdict import describe, verdict

_MOST_NODES = 8
"""Maximum number of nodes shown as trees. With more nodes, each running or failed one is one line."""

_MOST_LINES = 16

Steps = Mapping[str, Mapping[str, Any]]
"""Steps in the form of `Timeline.state`, by id."""


class LiveTree:
    """The state of a start, the step to look at, and the tree of its steps.

    The steps that run are at the bottom, which a terminal with too few lines would not show. There the finished ones are
    left out.

    Args:
        steps: The steps.
        now: The time, in seconds since the epoch.
        remaining: The time remaining until the start is ready; see `Timeline.expect`.
        stuck: The steps that are stuck, the one that the others wait for first.
    """

    def __init__(
        self,
        steps: Steps,
        now: float,
        remaining: Mapping[str, Any] | None = None,
        stuck: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._draw = partial(live_tree, steps, now, remaining, stuck)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._draw()
        fits = len(console.render_lines(whole, options, pad=False)) <= options.size.height
        yield whole if fits else self._draw(with_finished=False)


def live_tree(
    steps: Steps,
    now: float,
    remaining: Mapping[str, Any] | None = None,
    stuck: Sequence[Mapping[str, Any]] = (),
    *,
    with_finished: bool = True,
) -> RenderableType:
    """Return what `LiveTree` draws, with its finished steps or without them."""
    inside: dict[str | None, list[Mapping[str, Any]]] = {}
    for step in steps.values():
        parent = step.get("parent")
        inside.setdefault(parent if parent in steps else None, []).append(step)
    nodes = [step for step in steps.values() if step["kind"] == "node"]
    found = verdict(steps, now, stuck)
    headline = Text(
        redact(describe(found, remaining, with_node=len(nodes) > 1)), style=_STYLES.get(found.state, "bold")
    )
    if len(nodes) > _MOST_NODES:
        return Group(headline, *_many(nodes, inside, now))
    stuck_ids = {str(each.get("step")) for each in stuck}
    if not with_finished:
        inside = {
            parent: [step for step in inner if parent is None or step["outcome"] != "finished"]
            for parent, inner in inside.items()
        }
    return Group(headline, *(_tree(step, inside, now, stuck_ids) for step in inside.get(None, ())))


_STYLES = {"failed": "bold red", "stuck": "bold yellow", "slow": "bold yellow", "ready": "bold green"}


def step_line(step: Mapping[str, Any], now: float, *, with_error: bool = True, is_stuck: bool = False) -> Text:
    """Return a step as one line: its outcome, title, duration, progress and error.

    Args:
        step: The step.
        now: The time, in seconds since the epoch.
        with_error: Whether its error is shown.
        is_stuck: Whether it is marked as stuck.
    """
    mark, style = {"running": ("●", "yellow"), "finished": ("✓", "green")}.get(step["outcome"], ("✗", "red"))
    if is_stuck:
        mark, style = "!", "bold yellow"
    attributes = step.get("attributes", {})
    line = Text()
    line.append(f"{mark} ", style=style)
    line.append(
        redact(format_title(step["kind"], step["name"])), style="bold" if step["kind"] in ("node", "phase") else ""
    )
    if module := attributes.get("module"):
        line.append(f" {module}")
    if process := attributes.get("process"):
        line.append(f" · {process}", style="dim")
    line.append(f"  {format_duration(max(0.0, step.get('end', now) - step['start']))}", style="dim")
    if step["outcome"] == "running" and (usual := step.get("usual")):
        line.append(f" of usually {format_duration(usual['seconds'])}", style="dim")
    if step["outcome"] == "running" and step.get("done") is not None:
        line.append(
            f"  {format_progress(step['done'], step.get('total'), step['unit'], step.get('rate'))}", style="cyan"
        )
    if step.get("error"):
        error = f": {redact(step['error'])}" if with_error else ""
        line.append(f"  {step['outcome']}{error}", style="red")
    if changed := attributes.get("changed"):
        line.append(f"  changed {changed}", style="magenta")
    return line


def _tree(
    step: Mapping[str, Any], inside: Mapping[str | None, list[Mapping[str, Any]]], now: float, stuck: Collection[str]
) -> Tree:
    shown = [each for each in inside.get(step["id"], ()) if _is_worth_a_line(step, each)]
    is_shown_inside = any(each.get("error") == step.get("error") for each in shown[-_MOST_LINES:])
    line = step_line(step, now, with_error=not is_shown_inside, is_stuck=step["id"] in stuck)
    tree = Tree(line, guide_style="dim")
    for each in shown[-_MOST_LINES:]:
        tree.children.append(_tree(each, inside, now, stuck))
    if len(shown) > _MOST_LINES:
        tree.add(Text(f"and {len(shown) - _MOST_LINES} before these", style="dim"))
    return tree


def _is_worth_a_line(outer: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    if step["outcome"] == "finished" and step["kind"] == "callback":
        return bool(step.get("attributes", {}).get("changed"))
    return step["outcome"] != "finished" or outer["outcome"] != "finished" or outer["kind"] in ("cluster", "node")


def _many(
    nodes: list[Mapping[str, Any]], inside: Mapping[str | None, list[Mapping[str, Any]]], now: float
) -> Iterable[Text]:
    outcomes = [node["outcome"] for node in nodes]
    ready, running = outcomes.count("finished"), outcomes.count("running")
    failed = len(nodes) - ready - running
    yield Text(f"{len(nodes)} nodes: {ready} ready, {running} starting, {failed} failed", style="bold")
    shown = sorted(
        (node for node in nodes if node["outcome"] != "finished"),
        key=lambda node: (node["outcome"] == "running", node["start"]),
    )
    for node in shown[:_MOST_LINES]:
        line = step_line(node, now)
        phases = [
            format_title(step["kind"], step["name"])
            for step in inside.get(node["id"], ())
            if step["outcome"] == "running"
        ]
        line.append(f"  {', '.join(phases)}", style="yellow")
        yield line
    if len(shown) > _MOST_LINES:
        yield Text(f"and {len(shown) - _MOST_LINES} more", style="dim")
