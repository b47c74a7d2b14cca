"""Sharing the context between processes: each node gets a snapshot, and the driver merges the changes of the nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from phasebus.bus import Change, Context, Key
from phasebus.initializer.cluster.events import NodeConflictError

logger = logging.getLogger("phasebus.cluster")

_SYSTEM: Final = "phasebus"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """One change of a node's context, as it is sent to the driver.

    Attributes:
        key: The key that was changed.
        value: Its new value.
        by: The callback that changed it.
        during: The phase in which the callback ran.
        time: The time of the change, in seconds since the epoch.
        deleted: Whether the key was removed.
    """

    key: str
    value: Any
    by: str
    during: str
    time: float
    deleted: bool = False


def snapshot(context: Context, keys: Iterable[str]) -> dict[str, Any]:
    """Return the part of `context` that is sent to a node: the values of `keys` that can be pickled."""
    kept = {}
    for key in keys:
        if key in context:
            if _can_be_sent(context[key]):
                kept[str(key)] = context[key]
            else:
                by = context.history(key)[-1].by
                logger.warning("%r, written by %r, cannot be pickled and is not sent to the nodes", str(key), by)
    return kept


def changes_of(context: Context) -> list[NodeChange]:
    """Return the changes that callbacks made in a node's context, in order, without those that cannot be pickled."""
    changes = [
        _node_change(change)
        for key in context.changed
        for change in context.history(key)
        if change.by != _SYSTEM and _can_be_sent(change.value)
    ]
    return sorted(changes, key=lambda change: change.time)


def merge(context: Context, nodes: Mapping[str, Sequence[NodeChange]], keys: Iterable[Key[Any]]) -> None:
    """Merge the changes of `nodes` into `context`, by the rules of `keys`, with their history.

    A reducer is called in the order of the nodes. ``on_conflict="last"`` keeps the latest value. With ``"error"``, or
    without a rule, different values are a conflict.

    Raises:
        NodeConflictError: Two nodes wrote different values to a key without such a rule.
        InvalidValueError: A key rejects the value.
    """
    rules = {str(key): key for key in keys}
    written: dict[str, dict[str, NodeChange]] = {}
    for node, changes in nodes.items():
        for change in changes:
            written.setdefault(change.key, {})[node] = change
    for key, last_of in written.items():
        rule = rules.get(key)
        order = sorted(last_of.items(), key=lambda each: each[1].time) if _last_wins(rule) else list(last_of.items())
        for number, (node, change) in enumerate(order):
            if number:
                before_node, before = order[number - 1]
                value = _merged(context, rule, (before_node, before), (node, change))
            else:
                value = change.value
            if rule is not None and not change.deleted:
                value = rule.checked(value, change.by)
            _commit(context, node, change, value)


def _last_wins(rule: Key[Any] | None) -> bool:
    return rule is not None and rule.on_conflict == "last"


def _merged(
    context: Context, rule: Key[Any] | None, before: tuple[str, NodeChange], now: tuple[str, NodeChange]
) -> Any:
    (first_node, first), (second_node, second) = before, now
    if rule is not None and callable(rule.on_conflict) and not second.deleted and second.key in context:
        return rule.on_conflict(context[second.key], second.value)
    if (first.deleted, first.value) == (second.deleted, second.value) or _last_wins(rule):
        return second.value
    raise NodeConflictError(
        f"{first.by!r} on {first_node} and {second.by!r} on {second_node} wrote different values to {second.key!r} "
        f"(during {first.during} and {second.during}); write equal values, or give the key a rule: "
        f"ClusterConfig(keys=[Key({second.key!r}, on_conflict=…)])"
    )


def _commit(context: Context, node: str, change: NodeChange, value: Any) -> None:
    author = f"{change.by} on {node}"
    if change.deleted:
        if change.key in context:
            del context[change.key]
    else:
        context.apply(change.key, value, author, change.during)


def _node_change(change: Change) -> NodeChange:
    return NodeChange(
        key=change.key,
        value=change.value,
        by=change.by,
        during=getattr(change.event, "phase", type(change.event).__name__),
        time=change.time,
        deleted=change.deleted,
    )


def _can_be_sent(value: Any) -> bool:
    from phasebus.initializer.ray.pickling import can_be_pickled

    return can_be_pickled(value)
