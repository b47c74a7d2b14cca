"""Laws of the bus that hold for any sequence of what may happen to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasebus.bus import Bus, CallbackTimeoutError, ConflictError, Context, Key, Retry, current_event
from tests.support.waiting import wait_until


class Ping:
    pass


backends = st.sampled_from(["asyncio", "trio"])
names = st.sampled_from("abcd")


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[list[tuple[str, Any]], str]]:
    """What each subscriber writes (None deletes), and how it ends."""
    write = st.tuples(names, st.one_of(st.none(), st.integers(0, 9)))
    ends = st.sampled_from(["return", "raise", "time out", "fail at first"])
    return draw(st.lists(st.tuples(st.lists(write, max_size=4), ends), max_size=5))


def performer(writes: list[tuple[str, Any]], end: str) -> Callable[..., Any]:
    tries: list[int] = []

    async def perform(event: Ping, context: Context) -> None:
        tries.append(1)
        for key, value in writes:
            if value is None:
                context.pop(key, None)
            else:
                context[key] = value
        if end == "raise" or (end == "fail at first" and len(tries) == 1):
            raise ValueError
        if end == "time out":
            await anyio.sleep_forever()

    return perform


def options(end: str) -> dict[str, Any]:
    if end == "fail at first":
        return {"on_error": Retry(1, backoff=0)}
    return {"on_error": "isolate", "timeout": 0.0 if end == "time out" else None}


@given(backends, scripts())
def test_writes_of_successes_are_committed_in_order_and_of_failures_undone(
    backend: str, script: list[tuple[list[tuple[str, Any]], str]]
) -> None:
    expected: dict[str, Any] = {"a": "given"}
    authors: dict[str, list[str]] = {"a": ["phasebus"]}
    context = Context(expected)
    bus = Bus()
    for number, (writes, end) in enumerate(script):
        bus.subscribe(Ping, performer(writes, end), name=str(number), **options(end))
        if end in ("raise", "time out"):
            continue
        after = dict(expected)
        touched: dict[str, bool] = {}
        for key, value in writes:
            if value is not None:
                after[key] = value
                touched[key] = True
            elif after.pop(key, None) is not None:
                touched[key] = True
        for key in touched:
            authors.setdefault(key, []).append(str(number))
        expected = after

    async def main() -> list[type[BaseException] | None]:
        outcome = await bus.publish(Ping(), context)
        return [None if result.error is None else type(result.error) for result in outcome]

    ended = anyio.run(main, backend=backend)
    errors = {"raise": ValueError, "time out": CallbackTimeoutError}
    assert ended == [errors.get(end) for _, end in script]
    assert dict(context) == expected
    assert {key: [c.by for c in context.history(key)] for key in authors} == authors
    for key in authors:
        last = context.history(key)[-1]
        assert last.deleted == (key not in context)
        assert last.deleted or last.value == context[key]


@given(st.lists(st.tuples(names, st.booleans(), st.integers(0, 9)), max_size=8))
def test_conflict_rules_hold_for_any_writers(script: list[tuple[str, bool, int]]) -> None:
    """Each subscriber writes one key, by its plain name or by the `Key`."""
    only: Key[int] = Key("a", on_conflict="error")
    merged: Key[Any] = Key("b", on_conflict=lambda old, new: old + new)
    positive: Key[int] = Key("c", validate=_positive)
    keys: dict[str, str] = {"a": only, "b": merged, "c": positive, "d": "d"}
    context = Context(keys=[only, merged, positive])
    bus = Bus()
    expected: dict[str, int] = {}
    refused: list[bool] = []
    for name, typed, value in script:

        def write(event: Ping, view: Context, key: str = keys[name] if typed else name, value: int = value) -> None:
            view[key] = value

        bus.subscribe(Ping, write, on_error="isolate")
        no = (name == "a" and "a" in expected) or (name == "c" and value == 0)
        refused.append(no)
        if not no:
            expected[name] = expected.get("b", 0) + value if name == "b" else value

    async def main() -> list[bool]:
        return [result.error is not None for result in await bus.publish(Ping(), context)]

    assert anyio.run(main) == refused
    assert dict(context) == expected


def _positive(value: int) -> int:
    if value <= 0:
        raise ValueError("not positive")
    return value


actions = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), st.sampled_from(["quick", "slow", "raises", "thread", "writes", "conflicts"])),
        st.tuples(st.just("observe"), st.sampled_from(["quick", "slow", "raises", "thread", "thread raises"])),
        st.tuples(st.just("stream"), st.sampled_from(["read", "left"])),
        st.tuples(st.just("unsubscribe"), st.integers(0, 9)),
        st.tuples(st.just("publish"), st.sampled_from(["here", "task", "thread"])),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("yield"), st.just("")),
    ),
    max_size=14,
)

ONLY: Key[int] = Key("only", on_conflict="error")


@settings(max_examples=25)
@given(backends, actions)
def test_no_sequence_of_actions_leaks_tasks_threads_events_or_writes(
    backend: str, script: list[tuple[str, Any]]
) -> None:
    threads_before = set(threading.enumerate())
    events: list[weakref.ref[Ping]] = []
    contexts: list[Context] = []
    running = [0]

    async def main() -> None:
        before = anyio.get_running_tasks()
        await _perform(script, events, contexts, running)
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) == len(before), "a task is left"
        assert current_event() is None

    logging.disable()  # pytest keeps what is logged, and with it tracebacks and their events
    try:
        anyio.run(main, backend=backend)
    finally:
        logging.disable(logging.NOTSET)
    assert running == [0], "a subscriber or observer is left running"
    assert not any("half" in context for context in contexts), "half a write is left"
    contexts.clear()
    # a thread that is only just ending still holds its last event
    wait_until(lambda: not observers(set(threading.enumerate()) - threads_before), "no observer's thread is left", 30)
    gc.collect()
    assert [event() for event in events if event() is not None] == [], "an event is left in a buffer"
    assert len(set(threading.enumerate()) - threads_before) <= 40  # anyio keeps its idle workers


def observers(threads: set[threading.Thread]) -> set[threading.Thread]:
    return {thread for thread in threads if thread.name.startswith("phasebus observer")}


async def _perform(  # noqa: C901  # one branch for each thing that may happen
    script: list[tuple[str, Any]],
    events: list[weakref.ref[Ping]],
    contexts: list[Context],
    running: list[int],
) -> None:
    handles: list[Any] = []
    scopes: list[anyio.CancelScope] = []

    async with Bus(drain_seconds=60, history=0) as bus, anyio.create_task_group() as tasks:
        threads = bus.threads()

        async def publish() -> None:
            event, context = Ping(), Context(keys=[ONLY])
            events.append(weakref.ref(event))
            contexts.append(context)
            with contextlib.suppress(ValueError, ConflictError):
                await bus.publish(event, context)

        async def publish_in_scope() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await publish()

        def publish_in_thread() -> None:
            event = Ping()
            events.append(weakref.ref(event))
            with contextlib.suppress(ValueError, ConflictError):
                threads.publish(event)

        async def read(stay: bool) -> None:
            async with bus.stream(Ping, buffer=2) as stream:
                if stay:
                    with anyio.CancelScope() as scope:
                        scopes.append(scope)
                        async for _ in stream:
                            pass

        for action, what in script:
            if action == "subscribe":
                handles.append(bus.subscribe(Ping, _subscriber(what, running), thread=what == "thread"))
            elif action == "observe":
                handles.append(bus.observe(Ping, _observer(what, running), buffer=2))
            elif action == "stream":
                tasks.start_soon(read, what == "read")
            elif action == "unsubscribe" and handles:
                handles[what % len(handles)].unsubscribe()
            elif action == "publish" and what == "task":
                tasks.start_soon(publish_in_scope)
            elif action == "publish" and what == "thread":
                await anyio.to_thread.run_sync(publish_in_thread)
            elif action == "publish":
                await publish()
            elif action == "cancel" and scopes:
                scopes[what % len(scopes)].cancel()
            elif action == "yield":
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert all(stats.drops >= 0 for stats in bus.stats())


def _subscriber(what: str, running: list[int]) -> Callable[..., Any]:
    def at_once(event: Ping, context: Context) -> None:
        if what == "raises":
            context["half"] = 1
            raise ValueError
        if what == "writes":
            context["mark"] = 1
        if what == "conflicts":
            context["half"] = 1
            context[ONLY] = 1
            del context["half"]

    async def slow(event: Ping, context: Context) -> None:
        context["half"] = 1
        running[0] += 1
        try:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
        finally:
            running[0] -= 1
        del context["half"]

    return slow if what == "slow" else at_once


def _observer(what: str, running: list[int]) -> Callable[..., Any]:
    def in_thread(event: Ping) -> None:
        if what == "thread raises":
            raise ValueError

    async def in_task(event: Ping) -> None:
        if what == "raises":
            raise ValueError
        running[0] += 1
        try:
            for _ in range(5 if what == "slow" else 1):
                await anyio.lowlevel.checkpoint()
        finally:
            running[0] -= 1

    return in_thread if "thread" in what else in_task


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_many_publishers_at_once_keep_every_subscribers_order(backend: str) -> None:
    seen: dict[int, list[str]] = {}
    bus = Bus()
    for name in "abc":

        async def subscriber(event: int, name: str = name) -> None:
            await anyio.lowlevel.checkpoint()
            seen.setdefault(event, []).append(name)

        bus.subscribe(int, subscriber)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(bus.publish, number)

    anyio.run(main, backend=backend)
    assert seen == {event: ["a", "b", "c"] for event in range(20)}


def test_last_event_is_freed_after_its_publish() -> None:
    async def main() -> None:
        bus = Bus()

        async def subscriber(event: Ping) -> None: ...

        bus.subscribe(Ping, subscriber)
        event = Ping()
        left = weakref.ref(event)
        await bus.publish(event)
        del event
        gc.collect()
        assert left() is None

    asyncio.run(main())
