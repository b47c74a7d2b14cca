"""What a launcher may offer to describe its engine: its address, steps, factors, caches, versions and arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from phasebus.initializer.seams import Seam

if TYPE_CHECKING:
    from phasebus.telemetry.analysis import Lever
    from phasebus.telemetry.journal import Run


@runtime_checkable
class ServingEngine(Protocol):
    """What an engine also has if it serves requests over HTTP."""

    @property
    def url(self) -> str | None:
        """The URL of its server, ``http://host:port``, with /metrics below it; None if it does not serve."""


def url_of(engine: object) -> str | None:
    """Return the URL of an engine's server; None if it does not serve."""
    return engine.url if isinstance(engine, ServingEngine) else None


@runtime_checkable
class NamesSteps(Protocol):
    """What a launcher or observer also has if it knows the steps of its engine's start beforehand."""

    @property
    def step_names(self) -> Sequence[str]:
        """The names of all steps that the engine can have; metrics of each begin at 0 when the engine starts."""


def announced_steps(engine: object) -> Mapping[str, str]:
    """Return the attribute of the engine's step that lists the names of the steps inside it, if `engine` knows them.

    Args:
        engine: A launcher or an observer.
    """
    return {"steps": ",".join(engine.step_names)} if isinstance(engine, NamesSteps) else {}


@runtime_checkable
class DescribesFactors(Protocol):
    """What a launcher or observer also has if it knows what the duration of its engine's start depends on."""

    def factors(
        self, args: Mapping[str, Any], environment: Mapping[str, str]
    ) -> Mapping[str, str | int | float | bool]:
        """Return the arguments, variables and versions that matter, by names such as ``args.max_model_len``.

        Runs with equal factors are compared. None of them may be a secret.

        Args:
            args: The engine's own arguments; an observer of a command reads those of the command instead.
            environment: The environment of the engine's processes.
        """


@runtime_checkable
class SuggestsLevers(Protocol):
    """What a launcher also has if it knows what shortens a start of its engine."""

    def levers(self, run: Run) -> Iterable[Lever]:
        """Return what can be changed about `run`, by its recorded steps; nothing if it started another engine."""


@runtime_checkable
class CachesInFolders(Protocol):
    """What a launcher also has if its engine keeps what it compiled or inspected for later starts."""

    def cache_variables(self, folder: str) -> Mapping[str, str]:
        """Return the variables that make the engine keep all of that in `folder` instead; models are not meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The installed version of an engine, and the supported ones.

    Attributes:
        title: The engine's name as its own documentation writes it.
        installed: The installed version; None without one.
        minimum: The first supported series: (major, minor).
        supported: The last release of each supported series, the oldest first; at least one.
    """

    title: str
    installed: str | None
    minimum: tuple[int, int]
    supported: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of ``phasebus doctor``; the attributes are those of its findings."""

    name: str
    value: str
    level: Literal["ok", "note", "fix"] = "ok"
    advice: str = ""


@runtime_checkable
class InspectableLauncher(Protocol):
    """What a launcher also has if ``phasebus doctor`` describes its engine; none of it imports the engine."""

    def versions(self) -> Versions:
        """Return the installed version, and the supported ones."""

    def missing_seams(self) -> Sequence[Seam]:
        """Return the private parts of the engine that phasebus uses and the installed version lacks."""

    def plugin_checks(self) -> Iterable[Check]:
        """Return whether an engine that is started here would load phasebus's plugin."""


@runtime_checkable
class ParsingLauncher(Protocol):
    """What a launcher also has if ``phasebus check --engine`` can check arguments with the engine's own parser."""

    def parse(
        self, model: str, args: Mapping[str, Any], env: Mapping[str, str], server: Mapping[str, Any] | None
    ) -> None:
        """Raise EngineError if the engine rejects its arguments or its model. It may import the engine, and starts nothing.

        Args:
            model: The path of the model, or its name where the engine finds it by itself.
            args: The engine's own arguments, by name.
            env: Environment variables of its processes.
            server: The arguments of its HTTP server, by name; None if it does not serve.
        """
