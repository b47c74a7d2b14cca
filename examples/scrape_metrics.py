"""Serve /metrics and /readyz while a node starts, and read them as Prometheus and a probe would."""

from pathlib import Path

import anyio
import httpx

from phasebus.bus import Context
from phasebus.initializer import LLMConfig, PreEngineInit, initialize_node
from phasebus.telemetry import Telemetry


async def main() -> None:
    Path("model").mkdir(exist_ok=True)
    Path("model", "config.json").write_text("{}")
    async with Telemetry(port=0) as telemetry:  # a free port; 9464 by default
        assert telemetry.service is not None

        async def look(event: PreEngineInit, context: Context) -> None:
            async with httpx.AsyncClient(base_url=telemetry.service.url) as client:
                print("during the start:", (await client.get("/readyz")).status_code)

        config = LLMConfig(model="model", engine="none", callbacks=[look])
        async with await initialize_node(config, telemetry=telemetry):
            async with httpx.AsyncClient(base_url=telemetry.service.url) as client:
                print("afterwards:", (await client.get("/readyz")).status_code)
                metrics = (await client.get("/metrics")).text
        print(*(line for line in metrics.splitlines() if line.startswith("phasebus_phases_total")), sep="\n")


if __name__ == "__main__":
    anyio.run(main)
