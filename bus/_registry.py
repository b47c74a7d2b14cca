"""Who is on a bus: subscribers and observers, their names, and the plans that follow from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from threading import Lock

from phasebus.bus._errors import OrderError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._forms import name_of
from phasebus.bus._observers import Observation
from phasebus.bus._order import check_names, explained, ordered
from phasebus.bus._plan import Plan
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._steps import CallbackStarted
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Subscription


class Registry:
    """The subscribers and observers of one bus.

    Attributes:
        subscriptions: The subscribers, as they were registered.
        observations: The observers and streams, likewise.
        plans: The plan for each class of events that has been published since the last change.
    """

    def __init__(self, bus: str, plans: dict[type, Plan], *, timing: bool, recorded: bool) -> None:
        self.subscriptions: list[Subscription] = []
        self.observations: list[Observation | Stream] = []
        self.plans = plans
        self._bus = bus
        self._timing = timing
        self._recorded = recorded
        self._counting = Lock()  # for `stats`, which a scraper calls in a thread of its own

    def subscribe(self, subscription: Subscription) -> None:
        """Add `subscription`.

        Raises:
            OrderError: It names nobody, or closes a cycle.
        """
        check_names(subscription, {other.name for other in self.subscriptions})
        ordered([*self.subscriptions, subscription])
        self.subscriptions.append(subscription)
        self.forget_plans()

    def observe(self, observation: Observation | Stream) -> None:
        """Add `observation`."""
        self.observations.append(observation)
        self.forget_plans()

    def remove(self, member: Subscription | Observation | Stream) -> bool:
        """Take `member` off; return whether it was on."""
        members: list[Subscription] | list[Observation | Stream]
        members = self.subscriptions if isinstance(member, Subscription) else self.observations
        if member not in members:
            return False
        members.remove(member)  # type: ignore[arg-type]
        self.forget_plans()
        return True

    def free_name(self, wanted: str | None, callback: object) -> str:
        """Return the name for a new member: the one wanted, or else the first free one like its function's.

        Raises:
            OrderError: The name wanted is taken.
        """
        taken = {member.name for member in (*self.subscriptions, *self.observations)}
        if wanted in taken:
            raise OrderError(f"there is a subscriber or observer {wanted!r} on the bus {self._bus!r} already")
        stem = free = wanted or name_of(callback)
        number = 1
        while free in taken:
            number += 1
            free = f"{stem}-{number}"
        return free

    def plan(self, event: type) -> Plan:
        """Make, and remember, the plan for events of this class."""
        subscriptions = tuple(s for s in ordered(self.subscriptions) if s.selector.matches(event))
        plan = Plan(
            subscriptions,
            tuple(o for o in self.observations if o.selector.matches(event)),
            narrated=bool(subscriptions) and issubclass(event, PhaseEvent) and self._narrating(),
            timing=self._timing,
            recorded=self._recorded,
        )
        self.plans[event] = plan
        return plan

    def _narrating(self) -> bool:
        """Return whether calls are told of: somebody asked for that, and not just for everything there may be."""
        listening = (*self.observations, *(s for s in self.subscriptions if not s.selector.matches(object)))
        return any(listener.selector.matches(CallbackStarted) for listener in listening)

    def forget_plans(self) -> None:
        """Drop the plans: they are no longer right."""
        with self._counting:
            for plan in self.plans.values():
                plan.settle()
            self.plans.clear()

    def wants(self, event: type) -> bool:
        """Return whether anybody would hear an event of this class."""
        plan = self.plans.get(event)
        if plan is None:
            return self._recorded or any(m.selector.matches(event) for m in (*self.subscriptions, *self.observations))
        return plan.watched or bool(plan.subscriptions)

    def stats(self) -> tuple[SubscriberStats, ...]:
        """Return what every subscriber and observer has done so far."""
        with self._counting:
            calls: Counter[Subscription] = Counter()
            seconds: defaultdict[Subscription, list[float]] = defaultdict(list)
            for plan in list(self.plans.values()):
                calls.update(dict.fromkeys(plan.subscriptions, plan.completed))
                for subscription, took in plan.seconds():
                    seconds[subscription].append(took)
            return (
                *(s.tally.read(s.name, calls[s], seconds[s]) for s in list(self.subscriptions)),
                *(o.stats() for o in list(self.observations)),
            )

    def explain(self, event: type) -> str:
        """Return, for people, who is called for events of this class, in which order and why."""
        matching = [s for s in ordered(self.subscriptions) if s.selector.matches(event)]
        watching = [o for o in self.observations if o.selector.matches(event)]
        return explained(event.__name__, matching, self.subscriptions, [(o.name, o.selector.label) for o in watching])
