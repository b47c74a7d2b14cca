"""A subscription: one callback, which events it is called for, and its options."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypedDict
from weakref import WeakMethod

from phasebus.bus._checks import count, nearest, one_of, seconds, shown
from phasebus.bus._errors import OptionError
from phasebus.bus._forms import Callback, Form, Shape
from phasebus.bus._order import Stage
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import Tally
from phasebus.bus._weak import call_weakly, reference_to


@dataclass(frozen=True, slots=True)
class Retry:
    """An error policy: call again, with an unwritten context, before giving up and raising.

    Attributes:
        times: How many further tries there are after the first.
        on: The exceptions worth another try.
        backoff: The pause before the first further try, in seconds; it doubles each time (exponential backoff).
        longest: The longest pause, in seconds.
        jitter: The share of each pause that is drawn at random, 0 to 1, so that many nodes do not retry in step.

    Raises:
        OptionError: A number is negative, `jitter` is above 1, or `on` is no class of exceptions.
    """

    times: int = 2
    _: KW_ONLY
    on: type[Exception] | tuple[type[Exception], ...] = Exception
    backoff: float = 0.1
    longest: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        count("times", self.times, at_least=0)
        seconds("backoff", self.backoff)
        seconds("longest", self.longest)
        if not 0 <= seconds("jitter", self.jitter) <= 1:
            raise OptionError(f"jitter={self.jitter!r}: a share is needed, 0 to 1")
        classes = self.on if isinstance(self.on, tuple) else (self.on,)
        if not classes or not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
            raise OptionError(f"on={shown(self.on)}: a class of exceptions is needed, or a tuple of them")

    def is_for(self, error: Exception) -> bool:
        """Return whether `error` is one of those to try again after, or a group of nothing else, as task groups raise."""
        if isinstance(error, ExceptionGroup) and not isinstance(error, self.on):
            return error.split(self.on)[1] is None
        return isinstance(error, self.on)

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after `tries` tries have failed."""
        doublings = min(tries - 1, 1000)  # a float holds no more
        whole = min(self.backoff * 2.0**doublings, self.longest)
        return whole * (1 - self.jitter * random.random())


OnError = Literal["raise", "isolate"] | Retry


class Options(TypedDict, total=False):
    """The options of `Bus.subscribe`, which documents them."""

    name: str | None
    stage: Stage
    before: str | Iterable[str]
    after: str | Iterable[str]
    on_error: OnError
    timeout: float | None
    thread: bool
    weak: bool


def check_options(stage: object, on_error: object, timeout: object) -> None:
    """Raise OptionError unless these can be options of a subscription.

    Raises:
        OptionError: One of them cannot.
    """
    if not isinstance(stage, Stage):
        known = [f"Stage.{each.name}" for each in Stage]
        near = nearest(f"Stage.{stage}", known) if isinstance(stage, str) else ""
        raise OptionError(f"stage={shown(stage)}: it is one of {', '.join(known)}{near}")
    if not isinstance(on_error, Retry):
        one_of("on_error", on_error, ("raise", "isolate"), " or a Retry(…)")
    if timeout is not None:
        seconds("timeout", timeout)


class Subscription:
    """The handle of a subscribed callback; leaving it as a context manager unsubscribes.

    Attributes:
        name: Its name, unique on its bus.
        selector: Which events it is called for.
        call: What is called: the callback, or what adapts it.
        stage: Its coarse place in the order.
        before: The names of subscribers that run after it.
        after: The names of subscribers that run before it.
        on_error: What happens when it raises.
        timeout: The longest it may take, in seconds; None for no limit.
        thread: Whether it runs in a worker thread.
        awaited: Whether the call is known to return something to await.
        takes_no_context: Whether it is called with the event alone.
        guarded: Whether calling it takes more than calling it: a timeout, a thread, retries.
        tally: The counts behind its statistics.
    """

    __slots__ = (
        "_callback",
        "_leave",
        "_reference",
        "after",
        "awaited",
        "before",
        "call",
        "guarded",
        "name",
        "on_error",
        "selector",
        "stage",
        "takes_no_context",
        "tally",
        "thread",
        "timeout",
    )

    def __init__(
        self,
        leave: Callable[[Subscription], None],
        callback: Callback,
        shape: Shape,
        selector: Selector,
        *,
        name: str,
        stage: Stage,
        before: tuple[str, ...],
        after: tuple[str, ...],
        on_error: OnError,
        timeout: float | None,
        thread: bool,
        gone: Callable[[Subscription], None] | None,
    ) -> None:
        self._leave = leave
        self._callback: Callback | None = callback
        self._reference: WeakMethod[Callback] | None = None
        if gone is not None:
            self._callback, self._reference = None, reference_to(callback, partial(gone, self))
            leave_here = partial(gone if thread else leave, self)  # a worker thread must not change the bus
            callback = call_weakly(self._reference, leave_here, awaited=shape.awaited)
        self.selector = selector
        self.call = _from_short_form(callback) if shape.form is Form.SHORT else callback
        self.name = name
        self.stage = stage
        self.before = before
        self.after = after
        self.on_error = on_error
        self.timeout = timeout
        self.thread = thread
        self.tally = Tally()
        self.awaited = shape.awaited
        self.takes_no_context = shape.form is Form.EVENT
        self.guarded = timeout is not None or thread or isinstance(on_error, Retry)

    @property
    def callback(self) -> Callback | None:
        """The callback as it was given; None if it was held weakly and its object is deleted."""
        return self._callback if self._reference is None else self._reference()

    def unsubscribe(self) -> None:
        """Call the callback no more, from the next publish on. May be called twice."""
        self._leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} to {self.selector.label}>"


def _from_short_form(callback: Callback) -> Callback:
    def call(event: Any, view: Any) -> Any:
        return callback(getattr(event, "phase", type(event).__name__), getattr(event, "config", None), view)

    return call
