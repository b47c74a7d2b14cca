"""Replace the whole start: no download, no placement, and an engine of your own. The observers stay the same."""

import anyio

from phasebus.bus import Context
from phasebus.initializer import (
    ENGINE,
    SKIP_DEFAULT,
    CustomInitialization,
    LLMConfig,
    PreInitialization,
    initialize_node,
)


class Echo:
    """An engine that answers with the prompt."""

    async def generate(self, prompt: str, **sampling: object) -> str:
        return prompt.upper()

    async def probe(self) -> None:
        """Raise an error if it has died."""

    async def close(self) -> None:
        """End it."""


def take_over(event: PreInitialization, context: Context) -> None:
    context[SKIP_DEFAULT] = True


def provide(event: CustomInitialization, context: Context) -> None:
    context[ENGINE] = Echo()


async def main() -> None:
    async with await initialize_node(LLMConfig(model="none", callbacks=[take_over, provide])) as node:
        print(await node.engine.generate("ready"))


if __name__ == "__main__":
    anyio.run(main)
