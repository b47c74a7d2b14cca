"""A subscription: one callback, what it wants, and what it may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypedDict

from phasebus.bus._forms import Callback, Form, Shape
from phasebus.bus._order import Stage
from phasebus.bus._policies import OnError, Retry
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import Tally


class Options(TypedDict, total=False):
    """The options of `Bus.subscribe`, which says what they mean."""

    name: str | None
    stage: Stage
    before: str | Iterable[str]
    after: str | Iterable[str]
    on_error: OnError
    timeout: float | None
    thread: bool


class Subscription:
    """The handle of a subscribed callback; leaving it as a context manager unsubscribes.

    Calling it calls the callback, so that a decorated function can still be used as one.

    Attributes:
        name: The name it is known by, unique on its bus.
        callback: The callback as it was given.
        stage: Its coarse place in the order.
        before: The names of subscribers that run after it.
        after: The names of subscribers that run before it.
        on_error: What happens when it raises.
        timeout: The longest it may take, in seconds; None for no limit.
        thread: Whether it runs in a worker thread.
        awaited: Whether the call is known to return something to await.
        blind: Whether it takes no context.
        guarded: Whether calling it takes more than calling it.
    """

    __slots__ = (
        "_leave",
        "after",
        "awaited",
        "before",
        "blind",
        "call",
        "callback",
        "guarded",
        "name",
        "on_error",
        "selector",
        "stage",
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
    ) -> None:
        self._leave = leave
        self.callback = callback
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
        self.blind = shape.form is Form.EVENT
        self.guarded = timeout is not None or thread or isinstance(on_error, Retry)

    def unsubscribe(self) -> None:
        """Call the callback no more, from the next publish on. May be called twice."""
        self._leave(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.callback(*args, **kwargs)

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
