"""Starts that hang, each in a way of its own: ``python -m tests.support.hangs NAME SECONDS``.

A start is a process with a bus, the watchdog and fake processes of an engine, which report their steps here instead of
through a relay. It prints what the watchdog reports first as one JSON object, and ends with its processes. SECONDS is the
patience of the watchdog.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from phasebus.bus import Bus, StepKind, phase_event
from phasebus.initializer.downloads import DownloadSettings, fetch
from phasebus.initializer.engines.protocol import ENGINE_STEP
from phasebus.initializer.node.events import NODE
from phasebus.initializer.pipeline.phases import PHASE
from phasebus.observers import Watchdog
from phasebus.observers.stuck.suspects import Patience
from phasebus.telemetry.stuck import StuckSteps
from tests.support.raw_server import RawServer, raw_server

ENGINE: Final = StepKind("engine")
_PRELUDE: Final = """\
import ctypes, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with the start
from phasebus.stack_dump import offer_stacks
offer_stacks()
def ready():
    print(flush=True)
"""
_IDLE: Final = "import time; ready(); time.sleep(10000)"
_BUSY: Final = "ready()\nwhile True: pass\n"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the watchdog has to report first.

    Attributes:
        name: The title of the step.
        process: The name of its process.
        reason: What the reason contains.
        evidence: What the stacks or sockets contain.
    """

    name: str
    process: str
    reason: str
    evidence: str = ""


@dataclass
class Start:
    """A start that is about to hang.

    Attributes:
        bus: Its bus.
        folder: A folder of its own.
        processes: The fake processes of its engine.
    """

    bus: Bus
    folder: Path
    resources: ExitStack
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    hung: float = 0.0

    def process(self, code: str) -> int:
        """Start a process that offers its stacks and runs `code`; return its id once it does."""
        script = self.folder / f"engine_{len(self.processes)}.py"
        script.write_text(_PRELUDE + textwrap.dedent(code), encoding="utf-8")
        with script.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self.processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    async def engine(self, *steps: tuple[str, str, int], core: str = _IDLE) -> None:
        """Begin the steps of an engine, (name, process, pid), below one of its core, and wait for ever."""
        async with (
            self.bus.step(PHASE, "engine_init"),
            self.bus.step(ENGINE, "vllm"),
            self.bus.step(ENGINE_STEP, "init_engine_core", attributes=_at("EngineCore", self.process(core))) as outer,
            anyio.create_task_group() as tasks,
        ):
            for name, process, pid in steps:
                tasks.start_soon(self._step, name, process, pid, outer.id)

    async def _step(self, name: str, process: str, pid: int, parent: str) -> None:
        async with self.bus.step(ENGINE_STEP, name, parent=parent, attributes=_at(process, pid)):
            self.hung = time.monotonic()
            await anyio.sleep_forever()


def _at(process: str, pid: int) -> dict[str, str | int]:
    return {"process": process, "pid": pid}


def module(start: Start, path: str, code: str) -> Path:
    """Write a module into the folder of a start, under a path that the watchdog knows."""
    file = start.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    return file


async def stopped_worker(start: Start) -> None:
    busy, stopped = start.process(_BUSY), start.process(_BUSY)
    os.kill(stopped, signal.SIGSTOP)
    await start.engine(("load_weights", "Worker_TP0", busy), ("load_weights", "Worker_TP1", stopped))


async def blocked_socket(start: Start) -> None:
    silent = start.resources.enter_context(raw_server(_silent))
    host, _, port = silent.url.removeprefix("http://").partition(":")
    worker = start.process(
        f"""
        import socket
        peer = socket.create_connection(("{host}", {port}))
        ready()
        def receive_weights():
            peer.recv(1)
        receive_weights()
        """
    )
    await start.engine(("load_weights", "Worker", worker))


async def slow_disk(start: Start) -> None:
    os.mkfifo(start.folder / "model.safetensors")
    worker = start.process(
        f"""
        ready()
        def read_shard():
            open("{start.folder}/model.safetensors", "rb").read()
        read_shard()
        """
    )
    await start.engine(("load_weights", "Worker", worker))


async def silent_hub(start: Start) -> None:
    hub = start.resources.enter_context(raw_server(_silent))
    settings = DownloadSettings()
    async with start.bus.step(PHASE, "download"):
        start.hung = time.monotonic()
        await fetch(start.bus, f"{hub.url}/model.tar", destination=start.folder / "model", settings=settings)


async def import_lock(start: Start) -> None:
    module(start, "slow_extension.py", "import threading; threading.Event().wait()")
    front_end = start.process(
        f"""
        import sys, threading, time
        sys.path.insert(0, "{start.folder}")
        def import_beside():
            import slow_extension
        threading.Thread(target=import_beside, daemon=True).start()
        while "slow_extension" not in sys.modules:
            time.sleep(0.001)
        ready()
        import slow_extension
        """
    )
    async with start.bus.step(ENGINE_STEP, "import_engine", attributes=_at("front_end", front_end)):
        start.hung = time.monotonic()
        await anyio.sleep_forever()


async def blocking_callback(start: Start) -> None:
    async def pin_to_rack(event: object) -> None:
        start.hung = time.monotonic()
        threading.Event().wait()

    event = phase_event("pre_download")
    start.bus.subscribe(event, pin_to_rack)
    async with start.bus.step(PHASE, "download"):
        await start.bus.publish(event())


async def absent_peer(start: Start) -> None:
    collective = module(
        start,
        "torch/distributed/distributed_c10d.py",
        """
        import threading
        def barrier():
            threading.Event().wait()
        """,
    )
    arrived = start.process(
        f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("distributed_c10d", "{collective}")
        c10d = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(c10d)
        ready()
        def init_device():
            c10d.barrier()
        init_device()
        """
    )
    absent = start.process(
        f"""
        import fcntl
        lock = open("{start.folder}/lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready()
        def read_tuning_table():
            fcntl.flock(open("{start.folder}/lock", "w"), fcntl.LOCK_EX)
        read_tuning_table()
        """
    )
    await start.engine(("init_device", "Worker_TP0", arrived), ("create_worker", "Worker_TP1", absent))


async def killed_for_memory(start: Start) -> None:
    worker = start.process(_BUSY)
    os.kill(worker, signal.SIGKILL)
    await start.engine(("load_weights", "Worker", worker))


async def full_disk(start: Start) -> None:
    worker = start.process(
        """
        import sys, time
        ready()
        def write_compiled_graph():
            while True:
                try:
                    with open("/dev/full", "w") as cache:
                        cache.write("x" * 4096)
                    return
                except OSError as error:
                    print(f"WARNING cannot write the compile cache: {error}", file=sys.stderr, flush=True)
                    time.sleep(0.5)
        write_compiled_graph()
        """
    )
    await start.engine(("compile_graph", "Worker", worker))


async def name_server(start: Start) -> None:
    worker = start.process(
        """
        import socket, _socket
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 0))
        question = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        question.connect(silent.getsockname())
        def ask(*arguments):
            question.send(b"?")
            return question.recv(512)
        _socket.getaddrinfo = ask
        ready()
        socket.create_connection(("head-node.cluster.local", 29500))
        """
    )
    await start.engine(("init_device", "Worker_TP1", worker))


async def deadlock(start: Start) -> None:
    core = """
        import threading
        first, second, met = threading.Lock(), threading.Lock(), threading.Barrier(2)
        def hold_cache():
            with first:
                met.wait()
                with second:
                    pass
        threading.Thread(target=hold_cache, daemon=True).start()
        def allocate_blocks():
            with second:
                met.wait()
                ready()
                with first:
                    pass
        allocate_blocks()
        """
    pid = start.process(core)
    await start.engine(("allocate_kv_cache", "EngineCore_DP0", pid))


async def paused_raylet(start: Start) -> None:
    raylet = start.process(
        """
        import ctypes, time
        ctypes.CDLL(None).prctl(15, b"raylet", 0, 0, 0)
        ready()
        time.sleep(1000)
        """
    )
    os.kill(raylet, signal.SIGSTOP)
    async with start.bus.step(PHASE, "placement_group"):
        start.hung = time.monotonic()
        await anyio.sleep_forever()


async def spinning_ranks(start: Start) -> None:
    collective = module(
        start,
        "torch/distributed/distributed_c10d.py",
        """
        def all_reduce():
            while True:
                pass
        """,
    )
    code = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("distributed_c10d", "{collective}")
        c10d = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(c10d)
        ready()
        c10d.all_reduce()
        """
    await start.engine(("init_device", "Worker_TP0", start.process(code)))


HANGS: Final[dict[str, tuple[Callable[[Start], Awaitable[None]], Expected]]] = {
    "stopped worker": (stopped_worker, Expected("load weights", "Worker_TP1", "is stopped")),
    "blocked socket": (blocked_socket, Expected("load weights", "Worker", "receive_weights", "no data in either")),
    "slow disk": (slow_disk, Expected("load weights", "Worker", "read_shard")),
    "silent hub": (silent_hub, Expected("listing", "phasebus", "no data", "connected")),
    "lock held in an import": (
        import_lock,
        Expected("import engine", "front_end", "waits for an import", "import_beside"),
    ),
    "blocking callback": (
        blocking_callback,
        Expected("callback", "phasebus", "waits for another thread", "pin_to_rack"),
    ),
    "absent peer rank": (absent_peer, Expected("create worker", "Worker_TP1", "read_tuning_table")),
    "worker killed for memory": (killed_for_memory, Expected("load weights", "Worker", "its process has ended")),
    "full disk": (full_disk, Expected("compile graph", "Worker", "a disk is full", "write_compiled_graph")),
    "name server": (name_server, Expected("init device", "Worker_TP1", "(DNS)", "udp 127.0.0.1")),
    "deadlock": (deadlock, Expected("allocate kv cache", "EngineCore_DP0", "allocate_blocks", "hold_cache")),
    "paused raylet": (paused_raylet, Expected("placement group", "raylet", "is stopped")),
    "ranks that spin in a barrier": (
        spinning_ranks,
        Expected("init device", "Worker_TP0", "waits for the other ranks", "all_reduce"),
    ),
}


async def main(name: str, seconds: float) -> None:
    """Run the start `name` with a watchdog of the patience `seconds`."""
    hang, _ = HANGS[name]
    patience = Patience(seconds=seconds, elsewhere=8 * seconds, halted=seconds / 3, interval=seconds / 8)
    with ExitStack() as resources, tempfile.TemporaryDirectory(prefix="phasebus-hang-") as folder:
        async with Bus("start", timing=True) as bus:
            start = Start(bus, Path(folder), resources)
            bus.observe(None, Watchdog(patience=patience, report=[lambda stuck: _end(start, stuck)]))
            async with bus.step(NODE, "node"):
                await hang(start)


def _end(start: Start, stuck: StuckSteps) -> None:
    first = stuck.steps[0]
    pids = {process.pid: Path(str(process.args[1])).stem for process in start.processes}  # type: ignore[index]
    seconds = time.monotonic() - start.hung
    print(
        json.dumps({"seconds": seconds, "pids": list(pids), "others": len(stuck.steps) - 1, **first.plain()}),
        flush=True,
    )
    for process in start.processes:
        process.kill()
        process.wait()
    os._exit(0)


def _silent(server: RawServer, connection: Any) -> None:
    server.closed.wait()


def run(names: Sequence[str], seconds: float) -> dict[str, dict[str, Any]]:
    """Run starts that hang, all at once, and return what each has reported first; {} of one that has reported nothing."""
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.support.hangs", name, str(seconds)], stdout=subprocess.PIPE, text=True
        )
        for name in names
    }
    found: dict[str, dict[str, Any]] = {}
    for name, process in running.items():
        try:
            out, _ = process.communicate(timeout=90 + 10 * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
        found[name] = json.loads(out) if out.strip() else {}
    return found


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], float(sys.argv[2]))
