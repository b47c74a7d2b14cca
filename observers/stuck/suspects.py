"""What the search for stuck steps is given and finds: the patience, the suspects, the findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from phasebus.bus import StepStarted

Sign = Literal["gone", "stopped", "overdue", "idle", "waits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a step may show no progress, in seconds.

    Attributes:
        seconds: If its process is seen.
        elsewhere: If it waits for something that is not seen from here, such as Ray.
        halted: If its process is stopped, or gone.
        interval: The time between two samples.
    """

    seconds: float = 8.0
    elsewhere: float = 60.0
    halted: float = 3.0
    interval: float = 1.0


DEFAULT_PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A step that makes no progress.

    Attributes:
        step: Its start.
        process: The name of its process.
        pid: The id of its process; 0 if that is not on this machine, or unknown.
        sign: What shows it.
        seconds: How long that has been so.
        halted: The id and name of the stopped process, if it is another one that its own has started.
        usual: Its usual duration in seconds; None if it has no history.
        ended_steps: The number of steps that have ended in its process.
        cpu: The CPU time of its process meanwhile, in seconds.
        read: The bytes that its process has read meanwhile.
    """

    step: StepStarted
    process: str
    pid: int
    sign: Sign
    seconds: float
    halted: tuple[int, str] | None = None
    usual: float | None = None
    ended_steps: int = 0
    cpu: float = 0.0
    read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look has found.

    Attributes:
        suspects: The steps that make no progress, if the start as a whole makes none.
        spinning: The processes that use a CPU and move nothing while all others are idle. If all of them only wait, the
            start as a whole makes no progress; their stacks show it.
        waiting: The suspects in that case: the idle ones, or else all of them.
    """

    suspects: tuple[Suspect, ...] = ()
    spinning: tuple[int, ...] = ()
    waiting: tuple[Suspect, ...] = ()


NOTHING: Final = Findings()
