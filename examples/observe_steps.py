"""An observer: the duration of every step, by kind and name. It can neither slow nor break the start."""

from pathlib import Path

import anyio

from phasebus.bus import StepFailed, StepFinished
from phasebus.initializer import LLMConfig, initialize_node


class Durations:
    """Collects the duration of every step that has ended."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, str]] = []

    def observe(self, event: StepFinished | StepFailed) -> None:
        self.rows.append((event.seconds, f"{event.kind} {event.name}"))


async def main() -> None:
    Path("model").mkdir(exist_ok=True)
    Path("model", "config.json").write_text("{}")
    durations = Durations()
    async with await initialize_node(LLMConfig(model="model", engine="none", callbacks=[durations])):
        pass
    for seconds, name in sorted(durations.rows, reverse=True):
        print(f"{seconds:8.4f} s  {name}")


if __name__ == "__main__":
    anyio.run(main)
