"""Follow a start from another task, as a stream of events."""

from pathlib import Path

import anyio

from phasebus.bus import Bus, StepEvent
from phasebus.initializer import LLMConfig, initialize_node


async def follow(bus: Bus, task_status: anyio.abc.TaskStatus[None]) -> None:
    async with bus.stream(StepEvent) as events:
        task_status.started()
        async for event in events:
            print(f"{type(event).__name__:<20} {event.kind} {event.name}")


async def main() -> None:
    Path("model").mkdir(exist_ok=True)
    Path("model", "config.json").write_text("{}")
    async with anyio.create_task_group() as tasks:
        async with Bus("follow") as bus:  # the stream ends when the bus closes
            await tasks.start(follow, bus)
            async with await initialize_node(LLMConfig(model="model", engine="none"), bus=bus):
                pass


if __name__ == "__main__":
    anyio.run(main)
