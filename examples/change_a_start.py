"""Change a start with callbacks of both forms, and read who changed what."""

from pathlib import Path

import anyio

from phasebus.bus import Context
from phasebus.initializer import ENGINE_ARGS, LLMConfig, PreEngineInit, initialize_node


def tokenizer_only(phase, config, data):  # the short form sees every phase
    if phase == "pre_download":
        return {"local_node_download_model": "TOKENIZER_ONLY"}
    return None


async def short_contexts(event: PreEngineInit, context: Context) -> None:  # the typed form, only its own
    context[ENGINE_ARGS] = {**context[ENGINE_ARGS], "max_model_len": 256}


async def main() -> None:
    Path("model").mkdir(exist_ok=True)
    Path("model", "config.json").write_text("{}")
    # Without `engine="none"`, vLLM starts in a Ray actor and answers node.engine.generate(…).
    config = LLMConfig(model="model", engine="none", callbacks=[tokenizer_only, short_contexts])
    async with await initialize_node(config) as node:
        for key in ("local_node_download_model", "engine_args"):
            for change in node.context.history(key):
                print(f"{key} = {change.value!r} by {change.by}")


if __name__ == "__main__":
    anyio.run(main)
