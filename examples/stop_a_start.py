"""Fail a start on purpose: the error names the callback and the phase, and nothing is left behind."""

from pathlib import Path

import anyio

from phasebus.bus import Context
from phasebus.initializer import DOWNLOAD_RESULT, LLMConfig, PhaseFailed, PostDownload, initialize_node

MOST_BYTES = 1


def check_size(event: PostDownload, context: Context) -> None:
    if context[DOWNLOAD_RESULT].bytes > MOST_BYTES:
        raise ValueError(f"the model has {context[DOWNLOAD_RESULT].bytes} bytes, and only {MOST_BYTES} fit")


def report(event: PhaseFailed) -> None:
    print(f"the phase {event.name!r} has failed")


async def main() -> None:
    Path("model").mkdir(exist_ok=True)
    Path("model", "config.json").write_text("{}")
    try:
        await initialize_node(LLMConfig(model="model", engine="none", callbacks=[check_size, report]))
    except ValueError as error:
        print(error, *error.__notes__, sep="\n  ")


if __name__ == "__main__":
    anyio.run(main)
