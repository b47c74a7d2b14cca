"""Phases for any process: callbacks change them, and it has spans, metrics and a journal like a start."""

import anyio

from phasebus.bus import Context, Key, StepKind, phase_event
from phasebus.initializer import Phase, run_phases
from phasebus.initializer.pipeline.wiring import watched

BATCH: Key[int] = Key("batch", validate=int, doc="how many documents are indexed at once")


async def index(context: Context) -> None:
    print(f"indexing {context[BATCH]} documents at once")


INDEXING = (
    Phase(name="read"),
    Phase(name="index", before=phase_event("pre_index"), work=index, after=phase_event("post_index")),
)


def smaller_batches(phase, config, data):
    return {"batch": 8} if phase == "pre_index" else None


async def main() -> None:
    async with watched("indexing", [smaller_batches]) as bus, bus.step(StepKind("indexing"), "nightly"):
        await run_phases(bus, INDEXING, Context({BATCH: 64}))


if __name__ == "__main__":
    anyio.run(main)
