from __future__ import annotations

from pathlib import Path

import pytest

from phasebus.bus import Bus, StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.initializer import NodeLostError, PhaseFailed
from phasebus.initializer.cluster.lost_nodes import close_steps, recorded_steps
from phasebus.initializer.pipeline.phases import PhaseStarted
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import JournalWriter, journal_of

pytestmark = pytest.mark.anyio

NODE, PHASE, EARLY, LATE = "a" * 16, "b" * 16, "c" * 16, "d" * 16
LOST = NodeLostError("the node 'node-1' was lost")


@pytest.fixture
def identity() -> RunIdentity:
    return RunIdentity.fresh("driver", {}).of_member("node-1", "f" * 16)


@pytest.fixture
def journal(identity: RunIdentity) -> Path:
    """The journal of a node that was killed in a phase."""
    writer = JournalWriter(journal_of(identity), identity)
    writer.write(StepStarted(step=NODE, parent="f" * 16, kind="node", name="node-1", time_ns=10**18))
    for step, end in ((EARLY, 10**18 + 10**9), (LATE, 10**18 + 9 * 10**9)):
        writer.write(StepStarted(step=step, parent=NODE, kind="phase", name="p", time_ns=10**18))
        writer.write(StepFinished(step=step, parent=NODE, kind="phase", name="p", time_ns=end, seconds=1.0))
    writer.write(PhaseStarted(step=PHASE, parent=NODE, kind="phase", name="download", time_ns=10**18 + 5 * 10**9))
    return journal_of(identity)


async def published(journal: Path, run: str) -> list[StepEvent]:
    bus, seen = Bus(), list[StepEvent]()

    def collect(event: StepEvent) -> None:
        seen.append(event)

    bus.subscribe(StepEvent, collect)
    await close_steps(bus, "node-1", recorded_steps(journal, run), LOST)
    return seen


async def test_open_steps_are_closed_with_their_ids_classes_and_the_reason(
    journal: Path, identity: RunIdentity
) -> None:
    events = await published(journal, identity.run)
    failed = {event.step: event for event in events if isinstance(event, StepFailed)}
    assert set(failed) == {NODE, PHASE}
    assert isinstance(failed[PHASE], PhaseFailed)
    for event in failed.values():
        assert (event.outcome, event.error) == ("died", LOST)
        assert event.attributes["node"] == "node-1"
    begun = {event.step: event for event in events if isinstance(event, StepStarted)}
    assert (begun[NODE].parent, begun[NODE].time_ns) == ("f" * 16, 10**18)


async def test_steps_that_ended_just_before_are_published_again_and_older_ones_are_not(
    journal: Path, identity: RunIdentity
) -> None:
    events = await published(journal, identity.run)
    finished = [event for event in events if isinstance(event, StepFinished)]
    assert [(event.step, event.time_ns) for event in finished] == [(LATE, 10**18 + 9 * 10**9)]


async def test_a_missing_journal_or_one_of_another_run_closes_nothing(journal: Path) -> None:
    assert recorded_steps(journal, "another") == []
    assert recorded_steps(journal.with_name("elsewhere.jsonl"), "any") == []
