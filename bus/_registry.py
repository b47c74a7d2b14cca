"""Who is on a bus: subscribers and observers, their names, and the plans that follow from them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from threading import Lock, RLock

from phasebus.bus._checks import names
from phasebus.bus._errors import OrderError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._functions import name_of
from phasebus.bus._log import log
from phasebus.bus._order import check_names, explained, ordered
from phasebus.bus._plan import Plan
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._step_events import CallbackStarted
from phasebus.bus._subscription import Subscription
from phasebus.bus._watcher import Watcher


class Registry:
    """The subscribers and observers of one bus.

    Attributes:
        subscriptions: The subscribers by their names, as they were registered.
        observations: The observers and streams, likewise.
        gone: Subscribers whose objects have been deleted. Any thread may add to it.
        plans: The plan for each class of events that has been published since the last change.
        changing: Held while members are added or removed, and while a plan is made of them: a bus that is not open may be
            used in several threads at once.
    """

    def __init__(self, bus: str, plans: dict[type, Plan], *, timing: bool, recorded: bool) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.observations: dict[str, Watcher] = {}
        self.gone: deque[Subscription] = deque()
        self.plans = plans
        self._bus = bus
        self._timing = timing
        self._recorded = recorded
        self._last_numbers: Counter[str] = Counter()
        self._named_by_others: set[str] = set()  # in `before` or `after`, whether it is still subscribed or not
        self.changing = RLock()  # a plan may run code of others, of a metaclass say, that subscribes
        self._counting = Lock()  # for `stats`, which a scraper calls in a thread of its own

    def subscribe(self, subscription: Subscription) -> None:
        """Add `subscription`.

        Raises:
            OrderError: It names an unknown subscriber, or closes a cycle.
        """
        check_names(subscription, self.subscriptions)
        # It can close a cycle only if something has to run before it, and something after it.
        if (subscription.before and subscription.after) or subscription.name in self._named_by_others:
            ordered([*self.subscriptions.values(), subscription])
        self._named_by_others.update(subscription.before, subscription.after)
        self.subscriptions[subscription.name] = subscription
        self.forget_plans()

    def observe(self, observation: Watcher) -> None:
        """Add `observation`."""
        self.observations[observation.name] = observation
        self.forget_plans()

    def remove(self, member: Subscription | Watcher) -> bool:
        """Remove `member`; return whether it was there."""
        members: dict[str, Subscription] | dict[str, Watcher]
        members = self.subscriptions if isinstance(member, Subscription) else self.observations
        with self.changing:
            if members.get(member.name) is not member:
                return False
            del members[member.name]
            self.forget_plans()
        return True

    def remove_gone(self) -> None:
        """Remove the subscribers whose objects have been deleted."""
        while self.gone:
            self.remove(self.gone.popleft())

    def free_name(self, wanted: str | None, callback: object) -> str:
        """Return a name for `callback`: the `wanted` one, or else the first free one like its function's.

        Raises:
            OptionError: The wanted name is none.
            OrderError: It is in use.
        """
        self.remove_gone()
        if wanted is not None:
            names("name", wanted)
        if wanted is not None and self._taken(wanted):
            raise OrderError(
                f"there is a subscriber or observer {wanted!r} on the bus {self._bus!r} already; "
                "choose another name=, or unsubscribe that one first"
            )
        stem = free = wanted or name_of(callback)
        if not self._taken(stem):
            self._last_numbers[stem] = 1  # those that were numbered may have left, so the numbers begin again
        while self._taken(free):
            self._last_numbers[stem] += 1
            free = f"{stem}-{self._last_numbers[stem]}"
        return free

    def _taken(self, name: str) -> bool:
        return name in self.subscriptions or name in self.observations

    def plan(self, event: type) -> Plan:
        """Make the plan for events of this class, and keep it."""
        with self.changing:
            self.remove_gone()
            subscriptions = tuple(s for s in ordered(self.subscriptions.values()) if s.selector.matches(event))
            plan = Plan(
                event,
                subscriptions,
                tuple(o for o in self.observations.values() if o.selector.matches(event)),
                emits_callback_steps=bool(subscriptions)
                and issubclass(event, PhaseEvent)
                and self._callbacks_are_watched(),
                timing=self._timing,
                recorded=self._recorded,
            )
            self.plans[event] = plan
        return plan

    def warn_of_unused_text(self, text: str) -> None:
        """Log a warning if subscribers select phases by their names: published `text` reaches none of them."""
        named = next((each.selector.phase for each in self.subscriptions.values() if each.selector.phase), None)
        if named is not None:
            log(
                logging.WARNING,
                "the text %r was published, and reaches no subscriber: one to a name, such as %r, receives the phase of that "
                "name. Publish phase_event(%r)(), or subscribe to str.",
                str(text),
                str(named),
                str(named),
            )

    def _callbacks_are_watched(self) -> bool:
        """Return whether anything selects the events of callbacks, other than subscribers that select everything."""
        choosy = (s for s in self.subscriptions.values() if not s.selector.matches(object))
        members: list[Subscription | Watcher] = [*choosy, *self.observations.values()]
        return any(member.selector.matches(CallbackStarted) for member in members)

    def forget_plans(self) -> None:
        """Drop the plans: they are no longer right."""
        with self._counting:
            for plan in self.plans.values():
                plan.retired = True
                plan.count()
            self.plans.clear()

    def wants(self, event: type) -> bool:
        """Return whether an event of this class would reach anything."""
        if self._recorded:
            return True
        plan = self.plans.get(event)
        if plan is not None:
            return bool(plan.subscriptions or plan.observations)
        members: list[Subscription | Watcher] = [*self.subscriptions.values(), *self.observations.values()]
        return any(member.selector.matches(event) for member in members)

    def stats(self) -> tuple[SubscriberStats, ...]:
        """Return the counts of every subscriber and observer so far."""
        with self._counting:
            calls: Counter[Subscription] = Counter()
            seconds: defaultdict[Subscription, list[float]] = defaultdict(list)
            for plan in list(self.plans.values()):
                calls.update(dict.fromkeys(plan.subscriptions, int(plan.completed)))
                for subscription, took in plan.seconds():
                    seconds[subscription].append(took)
            return (
                *(s.tally.read(s.name, calls[s], seconds[s]) for s in list(self.subscriptions.values())),
                *(o.stats() for o in list(self.observations.values())),
            )

    def explain(self, event: type) -> str:
        """Return, for people, what is called for events of this class, in which order and why."""
        registered = list(self.subscriptions.values())
        matching = [s for s in ordered(registered) if s.selector.matches(event)]
        watching = [o for o in self.observations.values() if o.selector.matches(event)]
        return explained(event.__name__, matching, registered, [(o.name, o.selector.label) for o in watching])
