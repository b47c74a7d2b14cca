"""What a row of `phasebus.telemetry.names` is: a metric family, and how a step feeds one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

FamilyType = Literal["counter", "gauge", "histogram", "summary"]

CLUSTER_PREFIX: Final = "phasebus_cluster_"
"""The prefix of the families that a hub exports, so that a scrape of the hub and of its nodes counts nothing twice."""

OUTCOMES: Final = ("finished", "failed", "cancelled", "timed_out", "died")
"""How a step ends."""

FILE_OUTCOMES: Final = ("fetched", "resumed", "cache_hit", "failed", "cancelled", "timed_out", "died")
"""How the transfer of a file ends."""

_RANGE: Final = "7d"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family.

    Attributes:
        name: Its name; `_total` included if it is a counter.
        type: Its type; a summary has a sum and a count, and no quantiles.
        help: Its HELP text.
        labels: The names of its labels.
        buckets: The upper bounds of a histogram.
        query: An example query; "" for the usual one of its type, see `example`.
    """

    name: str
    type: FamilyType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    query: str = ""

    @property
    def header(self) -> tuple[str, str]:
        """The name and the HELP text, as the constructors of prometheus_client have them."""
        return self.name, self.help

    @property
    def unit(self) -> str:
        """The unit in its name; "" if it counts things."""
        plain = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "bytes", "ratio") if plain.endswith(f"_{unit}")), "")

    @property
    def example(self) -> str:
        """A query that answers the usual question of its type, over seven days where it is about the past."""
        by = f" by ({', '.join(self.labels)}) " if self.labels else ""
        if self.query:
            return self.query
        if self.type == "counter":
            return f"sum{by}(increase({self.name}[{_RANGE}]))"
        if self.type == "summary":
            total, count = (f"sum{by}(increase({self.name}_{part}[{_RANGE}]))" for part in ("sum", "count"))
            return f"{total} / {count}"
        if self.type == "histogram":
            labels = ", ".join((*self.labels, "le"))
            return f"histogram_quantile(0.95, sum by ({labels}) (increase({self.name}_bucket[{_RANGE}])))"
        return f"max{by}({self.name})"

    def of_cluster(self) -> Family:
        """Return the family that a hub exports in place of this one: the sum over its nodes."""
        name = cluster_name(self.name)
        return self if name == self.name else replace(self, name=name, query=self.query.replace(self.name, name))


def cluster_name(name: str) -> str:
    """Return the name under which a hub exports the family `name`."""
    return name if name.startswith(CLUSTER_PREFIX) else CLUSTER_PREFIX + name.removeprefix("phasebus_")


@dataclass(frozen=True, slots=True)
class Count:
    """A counter fed from one attribute of a step when the step ends.

    Attributes:
        family: The counter.
        attribute: The attribute that is added up; None counts the steps themselves.
    """

    family: Family
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class KindNames:
    """The exported names of the steps of one kind.

    A label of a family is the step's name if it is `name_label`, its outcome, its kind, or else its attribute of that name.

    Attributes:
        span: The name of their spans; ``{name}`` stands for the step's own, ``{words}`` for that with
            spaces, ``{kind}`` for its kind.
        duration: The durations of the steps that finished, in seconds: a histogram or a summary.
        name_label: The label with the step's own name; None if no family has one.
        ends: The counter of the ended steps by outcome; None if only failures are counted.
        failures: The counter of the steps that failed, timed out or died; None if `ends` is there, or they are not counted.
        counts: Their other counters.
        outcomes: The values of the label ``outcome``.
        latest: The gauge with the duration of the last finished step; only for what a process does once.
        failure: The gauge, always 1, with the cause of the last failure in its labels; likewise.
        announces: By an attribute that lists names of steps: their kind. Their series begin at 0.
        contains: The kinds of the steps inside it that have the same labels. Their series begin at 0.
        divides: The counter that divides the duration among the steps inside it, by exclusive time, and their kind.
        shows_idle: Whether `in_progress` stays at 0 after a step has run; if not, only running steps have a series.
        moves_bytes: Whether the bytes in its progress are counted; False if they are part of another step's.
    """

    span: str
    duration: Family
    name_label: str | None = None
    ends: Family | None = None
    failures: Family | None = None
    counts: tuple[Count, ...] = ()
    outcomes: tuple[str, ...] = OUTCOMES
    latest: Family | None = None
    failure: Family | None = None
    announces: Mapping[str, str] = field(default_factory=dict)
    contains: tuple[str, ...] = ()
    divides: tuple[Family, str] | None = None
    shows_idle: bool = True
    moves_bytes: bool = True

    @property
    def in_progress(self) -> Family:
        """The gauge of the number of steps that run."""
        name = self.duration.name.removesuffix("_duration_seconds")
        return Family(
            f"{name}_in_progress",
            "gauge",
            f"Steps that run; {self.duration.name} has those that finished.",
            self.duration.labels,
            query=f"sum by ({', '.join(self.duration.labels)}) ({name}_in_progress)" if self.duration.labels else "",
        )

    @property
    def age(self) -> Family:
        """The gauge of the age of the oldest step that runs; it has no series while none runs."""
        name = self.duration.name.removesuffix("_duration_seconds")
        return Family(
            f"{name}_age_seconds",
            "gauge",
            f"Age of the oldest step in {name}_in_progress; absent while none runs.",
            self.duration.labels,
        )

    @property
    def families(self) -> tuple[Family, ...]:
        """All families of the kind."""
        present = (self.latest, self.failure, self.ends, self.failures, self.divides and self.divides[0])
        counts = (count.family for count in self.counts)
        return (self.duration, self.in_progress, self.age, *filter(None, present), *counts)
