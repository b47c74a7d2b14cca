"""Where the time of the last run went, from its journal; what `phasebus report` prints is made of the same functions."""

from pathlib import Path

import anyio

from phasebus.initializer import LLMConfig, initialize_node
from phasebus.telemetry.analysis import blame, critical_path, time_to_ready
from phasebus.telemetry.journal import find_journal, read_journal


async def main() -> None:
    Path("model").mkdir(exist_ok=True)
    Path("model", "config.json").write_text("{}")
    async with await initialize_node(LLMConfig(model="model", engine="none")):
        pass
    run = read_journal(find_journal())  # the last run
    print(f"ready in {time_to_ready(run):.3f} s")
    for row in blame(run):
        print(f"{row.share:5.0%}  {row.step.kind} {row.step.name}")
    print(f"{len(critical_path(run).links)} stretches set the time to ready")


if __name__ == "__main__":
    anyio.run(main)
