"""What watching an engine costs, and what starting it our way saves. Takes about 20 minutes (ROUNDS=1: 4)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread

import anyio

from phasebus.bus import Bus
from phasebus.initializer import LLMConfig, initialize_node
from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.initializer.pipeline.wiring import available_telemetry, observe_all
from phasebus.telemetry import Telemetry
from phasebus.telemetry.journal import Run
from tests.benchmarks.engine_starts import ENGINE_ARGS, phasebus_up, ray_serve_llm
from tests.benchmarks.measuring import Number, Table, spread

ROUNDS = int(os.environ.get("ROUNDS", "5"))

UNWATCHED = {"VLLM_PLUGINS": "none", "OTEL_SDK_DISABLED": "true"}
"""What keeps our plugin, and vLLM's own tracing, out of an engine."""

PROMPTS = 64
TOKENS = 32
DOWNLOAD_SECONDS = 25
_CHUNK = 65536


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    model = str(write_tiny_model(tiny_model_path()))
    yield _watching(model)
    yield _starting(model)
    yield _downloading(model)


def _watching(model: str) -> Table:
    """Observers on against off, and observers that all fail against off. Processes are spawned in all three."""
    ratios: dict[str, list[float]] = {name: [] for name in ("ready", "token", "ready broken", "token broken")}
    for _ in range(ROUNDS):
        off = anyio.run(_start_and_serve, model, False)
        on = anyio.run(_start_and_serve, model, True)
        with _everything_broken() as port:
            broken = anyio.run(_start_and_serve, model, True, port)
        ratios["ready"].append(on[0] / off[0])
        ratios["token"].append(off[1] / on[1])
        ratios["ready broken"].append(broken[0] / off[0])
        ratios["token broken"].append(off[1] / broken[1])

    def number(name: str) -> Number:
        return Number(median(ratios[name]), mark=1.01, beside=spread(ratios[name]))

    return Table(
        f"Watching: observers on / everything off, medians of {ROUNDS} rounds",
        ["", "on / off", "all failing / off"],
        [
            ["time to ready", number("ready"), number("ready broken")],
            ["seconds a generated token", number("token"), number("token broken")],
        ],
        [
            "All failing: no collector at the endpoint, no space for the journal, a taken port, observers that raise or hang.",
            "A start takes half a minute, and varies by several per cent: see the spread, lowest to highest.",
        ],
    )


@contextmanager
def _everything_broken() -> Iterator[int]:
    """Make every output of observers fail for this process; yield a port that is taken."""
    with (
        TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        file = Path(folder, "file")
        file.touch()
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "PHASEBUS_STATE_DIR": str(_full_disk(folder) or file),
        }
        closed.close()
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield taken.getsockname()[1]
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            subprocess.run(["umount", "--lazy", variables["PHASEBUS_STATE_DIR"]], capture_output=True, check=False)


def _full_disk(folder: str) -> Path | None:
    """Return a mounted file system with no space left; None where mounting is not allowed."""
    disk = Path(folder, "disk")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        return None
    with suppress(OSError), Path(disk, "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(1024)):
            pass
    return disk


def _raise(event: object) -> None:
    raise RuntimeError("this observer fails")


async def _hang(event: object) -> None:
    await anyio.sleep_forever()


async def _start_and_serve(model: str, watched: bool, taken_port: int | None = None) -> tuple[float, float]:
    """Return the seconds that a start took, and the tokens a second that it then generated.

    Args:
        model: The folder of the model.
        watched: Whether observers are on.
        taken_port: A port that cannot be bound, for observers that all fail; None for observers that work.
    """
    config = LLMConfig(
        model=model,
        engine_args=ENGINE_ARGS,
        engine_env={"VLLM_CPU_KVCACHE_SPACE": "1", **({} if watched else UNWATCHED)},
        engine_preload=False,
    )
    telemetry = available_telemetry(port=taken_port or 0) if watched else Telemetry(port=None)
    async with telemetry, Bus("bench", timing=watched) as bus:
        if watched:
            observe_all(bus, telemetry)
        if taken_port is not None:
            bus.observe(None, _raise)
            bus.observe(None, _hang)
        began = time.monotonic()
        async with await initialize_node(config, telemetry=telemetry, bus=bus) as node:
            seconds = time.monotonic() - began
            assert node.engine is not None
            await node.engine.generate("warm up", max_tokens=TOKENS, ignore_eos=True)
            began = time.monotonic()
            async with anyio.create_task_group() as tasks:
                for number in range(PROMPTS):
                    generate = partial(node.engine.generate, max_tokens=TOKENS, ignore_eos=True)
                    tasks.start_soon(generate, f"prompt {number}")
            return seconds, PROMPTS * TOKENS / (time.monotonic() - began)


def _starting(model: str) -> Table:
    """The same model and arguments, started by us and by Ray Serve LLM."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(phasebus_up(model)[0])
        theirs.append(ray_serve_llm(model))
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    return Table(
        f"From the start of the process to the first answer, medians of {ROUNDS} rounds",
        ["", "seconds", "phasebus / this"],
        [
            ["phasebus up", f"{median(ours):.1f} s", None],
            ["Ray Serve LLM", f"{median(theirs):.1f} s", Number(median(ratios), mark=0.75, beside=spread(ratios))],
        ],
        ["Both start a Ray cluster. `engine_forking` compares both, and vllm serve, with forks and without."],
    )


def _downloading(model: str) -> Table:
    """A download of some seconds beside the placement and the imports."""
    alone, beside, ratios = [], [], []
    for _ in range(max(1, ROUNDS // 2)):
        without, run = phasebus_up(model)
        alone.append(without)
        with slow_server(Path(model), DOWNLOAD_SECONDS) as url, TemporaryDirectory() as destination:
            beside.append(phasebus_up(url, download_destination=destination)[0])
        ratios.append(beside[-1] / (without + max(0.0, DOWNLOAD_SECONDS - _until_imported(run))))
    return Table(
        f"A download of {DOWNLOAD_SECONDS} s beside the start of the engine's process",
        ["", "seconds", "of the ideal overlap"],
        [
            ["without a download", f"{median(alone):.1f} s", None],
            ["with it", f"{median(beside):.1f} s", Number(median(ratios), mark=1.1, beside=spread(ratios))],
        ],
        ["Ideal: the start without a download, and what of the download outlasts placement and imports."],
    )


def _until_imported(run: Run) -> float:
    """Return how long placement and imports took in a start without a download, in seconds."""
    (process,) = (step for step in run.steps if (step.kind, step.name) == ("phase", "engine_process"))
    assert run.root is not None
    assert process.end_ns is not None
    return (process.end_ns - run.root.start_ns) / 1e9


@contextmanager
def slow_server(folder: Path, seconds: float) -> Iterator[str]:
    """Serve the files of `folder` so slowly that all of them take `seconds`."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    sums = "".join(f"{sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    whole = sum(map(len, files.values()))

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            content = self._answer()
            with suppress(BrokenPipeError):  # who only wants to know the size hangs up
                for start in range(0, len(content), _CHUNK):
                    chunk = content[start : start + _CHUNK]
                    time.sleep(seconds * len(chunk) / whole)
                    self.wfile.write(chunk)

        def _answer(self) -> bytes:
            content = (files | {"SHA256SUMS": sums.encode()})[self.path.removeprefix("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
