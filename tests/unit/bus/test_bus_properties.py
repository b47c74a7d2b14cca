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
    gc.freeze()  # what other tests left is not searched for garbage
    try:
        anyio.run(main, backend=backend)
    finally:
        logging.disable(logging.NOTSET)
    assert running == [0], "a subscriber or observer is left running"
    assert not any("half" in context for context in contexts), "half a write is left"
    contexts.clear()
    # a thread that has only just ended its work still holds its last event
    wait_until(lambda: not observers(set(threading.enumerate()) - threads_before), "no observer's thread is left", 30)
    wait_until(lambda: gc.collect() >= 0 and not any(event() for event in events), "no event is left in a buffer", 30)
    gc.unfreeze()
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


returned_actions = st.lists(
    st.tuples(st.sampled_from(["return the context", "return a copy", "return the write"]), names, st.integers(0, 3)),
    max_size=6,
)


@given(returned_actions)
def test_returning_the_context_writes_the_same_as_writing_to_it(script: list[tuple[str, str, int]]) -> None:
    """With any sequence of callbacks, values and authors are those of callbacks that return nothing."""
    merged: Key[int] = Key("b", on_conflict=lambda old, new: old + new)

    def callbacks(returning: bool) -> list[Callable[..., Any]]:
        made: list[Callable[..., Any]] = []
        for how, name, value in script:

            def callback(event: Ping, view: Context, how: str = how, name: str = name, value: int = value) -> Any:
                if how == "return the write" and returning:
                    return {name: value} if view.get(name) != value else None
                if how != "return the write" or view.get(name) != value:
                    view[name] = value
                if returning:
                    return {"return the context": view, "return a copy": dict(view)}.get(how)
                return None

            made.append(callback)
        return made

    histories = []
    for returning in (True, False):
        bus, context = Bus(), Context({"a": 100, "given": [1]}, keys=[merged])
        for number, callback in enumerate(callbacks(returning)):
            bus.subscribe(Ping, callback, name=str(number))
        anyio.run(bus.publish, Ping(), context)
        histories.append({key: [(c.by, c.value) for c in context.history(key)] for key in context})
    assert histories[0] == histories[1]


@settings(max_examples=30)
@given(backends, st.integers(1, 4), st.lists(st.sampled_from(["publish", "turn", "cancel", "add"]), max_size=30))
def test_every_event_of_a_shared_stream_reaches_one_reader_and_every_reader_ends(  # noqa: C901  # one branch an action
    backend: str, readers: int, script: list[str]
) -> None:
    got: list[int] = []
    alive = [0]

    async def main() -> int:
        published = 0
        async with anyio.create_task_group() as tasks:
            async with Bus() as bus, bus.stream(int, buffer=100) as stream:
                scopes: list[anyio.CancelScope] = []

                async def read(scope: anyio.CancelScope) -> None:
                    alive[0] += 1
                    with scope:
                        async for event in stream:
                            got.append(event)  # noqa: PERF401  # one by one
                    alive[0] -= 1

                def add() -> None:
                    scopes.append(anyio.CancelScope())
                    tasks.start_soon(read, scopes[-1])

                for _ in range(readers):
                    add()
                for action in script:
                    if action == "publish":
                        await bus.publish(published)
                        published += 1
                    elif action == "turn":
                        await anyio.wait_all_tasks_blocked()
                    elif action == "cancel" and len(scopes) > 1:
                        scopes.pop(0).cancel()
                    elif action == "add":
                        add()
            await anyio.wait_all_tasks_blocked()
            assert alive == [0], "a reader waits for ever"
        return published

    published = anyio.run(main, backend=backend)
    assert sorted(got) == list(range(published))


churn = st.lists(st.sampled_from(["begin", "end", "subscribe", "unsubscribe", "stream", "publish"]), max_size=25)


@settings(max_examples=30)
@given(backends, st.booleans(), churn)
def test_calls_are_counted_exactly_under_any_churn(  # noqa: C901  # one branch an action
    backend: str, takes_context: bool, script: list[str]
) -> None:
    called = [0]
    counts: list[int] = []

    async def main() -> None:  # noqa: C901
        async with Bus() as bus, anyio.create_task_group() as tasks:
            gates: list[anyio.Event] = []
            others: list[Any] = []

            async def waits(event: Any) -> None:
                called[0] += 1
                if gates and not isinstance(event, str):
                    await event.wait()

            async def waits_with_context(event: Any, context: Context) -> None:
                await waits(event)

            counted = bus.subscribe(Any, waits_with_context if takes_context else waits, name="it")
            for action in script:
                if action == "begin":
                    gates.append(anyio.Event())
                    tasks.start_soon(bus.publish, gates[-1])
                    await anyio.wait_all_tasks_blocked()
                elif action == "end" and gates:
                    gates[0].set()
                    await anyio.wait_all_tasks_blocked()
                elif action == "subscribe":
                    others.append(bus.subscribe(int, lambda event: None))
                elif action == "unsubscribe" and others:
                    others.pop().unsubscribe()
                elif action == "stream":
                    async with bus.stream(int):
                        pass
                elif action == "publish":
                    await bus.publish("at once")
            for gate in gates:
                gate.set()
            await anyio.wait_all_tasks_blocked()
            counts.extend(each.calls for each in bus.stats() if each.name == counted.name)

    anyio.run(main, backend=backend)
    assert counts == called
