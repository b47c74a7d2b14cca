"""The order of subscribers: `before` and `after` first, then coarse stages, then the order of registration."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Protocol, TypeVar

from phasebus.bus._errors import OrderError


class Stage(IntEnum):
    """A coarse place in the order; within one stage, subscribers run as they were registered."""

    EARLY = 10
    NORMAL = 20
    LATE = 30


class Ordered(Protocol):
    """What ordering needs to know of a subscriber."""

    @property
    def name(self) -> str: ...
    @property
    def stage(self) -> Stage: ...
    @property
    def before(self) -> tuple[str, ...]: ...
    @property
    def after(self) -> tuple[str, ...]: ...


S = TypeVar("S", bound=Ordered)


def ordered(registered: Iterable[S]) -> list[S]:
    """Return the subscribers, given as `registered`, in the order they run: Kahn's algorithm, earliest first.

    Names that are not (any longer) among them constrain nothing; see `check_names`.

    Raises:
        OrderError: `before` and `after` close a cycle.
    """
    subscribers = list(registered)
    followers = _followers(subscribers)
    waiting_for = [0] * len(subscribers)
    for following in followers:
        for index in following:
            waiting_for[index] += 1
    ready = [(subscriber.stage, index) for index, subscriber in enumerate(subscribers) if not waiting_for[index]]
    heapq.heapify(ready)
    order: list[S] = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(subscribers[index])
        for follower in followers[index]:
            waiting_for[follower] -= 1
            if not waiting_for[follower]:
                heapq.heappush(ready, (subscribers[follower].stage, follower))
    if len(order) < len(subscribers):
        raise OrderError(f"before/after close a cycle: {_cycle(subscribers, followers, waiting_for)}")
    return order


def _followers(subscribers: Sequence[Ordered]) -> list[set[int]]:
    """Return, for each of `subscribers`, the places of those that have to run after it."""
    place = {subscriber.name: index for index, subscriber in enumerate(subscribers)}
    followers: list[set[int]] = [set() for _ in subscribers]
    for index, subscriber in enumerate(subscribers):
        for name in subscriber.before:
            if name in place:
                followers[index].add(place[name])
        for name in subscriber.after:
            if name in place:
                followers[place[name]].add(index)
    return followers


def check_names(subscriber: Ordered, known: Collection[str]) -> None:
    """Raise OrderError unless everything `subscriber` names in `before` and `after` is `known`."""
    for name in (*subscriber.before, *subscriber.after):
        if name not in known:
            listed = ", ".join(sorted(known)) or "there are no subscribers yet"
            raise OrderError(
                f"{subscriber.name!r} is to run before or after {name!r}, which is not subscribed ({listed})"
            )


def explained(
    event: str, subscribers: Sequence[S], registered: Sequence[S], observers: Sequence[tuple[str, str]]
) -> str:
    """Return, for people, the order of `subscribers` for an event and the reasons, and who observes it."""
    lines = [f"{event}: {len(subscribers)} in order"] if subscribers else [f"{event}: no subscribers"]
    places = {each.name: place for place, each in enumerate(registered, 1)}
    for number, subscriber in enumerate(subscribers, 1):
        reasons = [f"stage {subscriber.stage.name.lower()}", f"registered {places[subscriber.name]}."]
        reasons += [f"before {name}" for name in subscriber.before]
        reasons += [f"after {name}" for name in subscriber.after]
        reasons += [f"{other.name} asked to run before it" for other in registered if subscriber.name in other.before]
        reasons += [f"{other.name} asked to run after it" for other in registered if subscriber.name in other.after]
        lines.append(f"{number:3}. {subscriber.name}  ({', '.join(reasons)})")
    lines += [f"  +  {name} observes {label}" for name, label in observers]
    return "\n".join(lines)


def _cycle(subscribers: Sequence[S], followers: list[set[int]], waiting_for: list[int]) -> str:
    """Name the members of one cycle: walk backwards among those that still wait until one comes up again."""
    index = next(i for i, waits in enumerate(waiting_for) if waits)
    path: list[int] = []
    while index not in path:
        path.append(index)
        index = next(i for i, following in enumerate(followers) if waiting_for[i] and path[-1] in following)
    members = [*path[path.index(index) :], index]
    return " before ".join(subscribers[i].name for i in reversed(members))
