"""Fuzzing each target in a process of its own."""

from __future__ import annotations

import gc
import logging
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Final

from tests.fuzz.shrinking import shrunk
from tests.fuzz.targets import load

INPUT_SECONDS: Final = 20
"""An input that takes longer counts as a failure."""

MAX_BYTES: Final = 4096
MAX_MEMORY_MB: Final = 2048

GARBAGE_OBJECTS: Final = 20_000
"""Garbage is collected after so many new objects, which takes less time than after each 700."""

_SHOWN_BYTES: Final = 500

_MEMORY: Final = Path("/dev/shm")  # a new folder is made in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of fuzzing one target.

    Attributes:
        target: The name of the target.
        inputs: The number of inputs that were tried.
        per_second: Their number per second.
        crash: The input that it failed on; None if it did not.
        error: The reason for the end, if it was not a limit.
    """

    target: str
    inputs: int
    per_second: int
    crash: Path | None = None
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether an input failed, or the process did."""
        return bool(self.error)

    def __str__(self) -> str:
        outcome = f"failed: {self.error}" if self.failed else "no crash"
        return f"{self.target:14} {self.inputs:>9,} inputs {self.per_second:>7,} inputs/s  {outcome}"


def run_all(
    targets: Iterable[str], folder: Path, *, inputs: int = 0, seconds: float = 0, seed: int = 0
) -> list[Result]:
    """Fuzz the targets, as many at a time as there are CPUs; print each result, and the shrunk input of each failure."""

    def run_one(target: str) -> Result:
        result = run(target, folder, inputs=inputs, seconds=seconds, seed=seed)
        print(result, flush=True)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(threads.map(run_one, targets))
    for result in results:
        if result.crash is not None:
            small = result.crash.with_suffix(".shrunk")
            small.write_bytes(shrunk(load(result.target).check, result.crash.read_bytes()))
            print(f"\n{result.target}: {result.error}\n{repetition(result.target, small)}")
    return results


def repetition(target: str, file: Path) -> str:
    """Return how the input in `file` is passed to the target again, here and on a machine without that file."""
    content = file.read_bytes()
    return (
        f"  the input: {content[:_SHOWN_BYTES]!r}\n"
        f"  again:     .venv/bin/python -m tests.fuzz --repeat {target} {file}\n"
        f"  elsewhere: base64 -d <<< {b64encode(content).decode()} | .venv/bin/python -m tests.fuzz --repeat {target} -"
    )


def run(target: str, folder: Path, *, inputs: int = 0, seconds: float = 0, seed: int = 0) -> Result:
    """Fuzz `target`, and save the inputs that fail.

    A tenth of the inputs, or half of the time, is for inputs that are mutated towards code that none has reached yet. The
    others are mutations of those that reached some, which are tried several times as fast.

    Args:
        target: The name of the target.
        folder: Where the inputs are saved.
        inputs: The largest number of inputs; 0 for no limit.
        seconds: The longest time; 0 for no limit.
        seed: The seed of the mutations and of the order of sets, which repeats the inputs; 0 for a new one.
    """
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    module = load(target)
    for number, content in enumerate(module.SEEDS):
        (corpus / f"seed-{number}").write_bytes(content)
    tokens = folder / f"{target}.tokens"
    tokens.write_text("".join(f'"{_escaped(each)}"\n' for each in module.TOKENS))
    options = {
        "timeout": INPUT_SECONDS,
        "max_len": MAX_BYTES,
        "seed": seed or None,
        "rss_limit_mb": MAX_MEMORY_MB,
        "dict": tokens,
        "artifact_prefix": f"{folder}/{target}-",
        "print_final_stats": 1,
    }
    time = {"max_total_time": max(1, int(seconds / 2)) if seconds else 0}
    guided = _arguments(options | time | {"runs": max(1, inputs // 10) if inputs else 0})
    others = _arguments(options | time | {"runs": inputs - inputs // 10, "keep_seed": 1})
    command = [sys.executable, "-m", "tests.fuzz.process", target, str(corpus), *guided, "--", *others]
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as temporary:
        process = subprocess.run(
            command,
            env={  # targets write a file for each input
                **os.environ,
                "TMPDIR": temporary,
                "PYTHONHASHSEED": str(seed or "random"),
            },
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    return _result(target, process.stdout + process.stderr, process.returncode)


def _arguments(options: Mapping[str, object]) -> list[str]:
    return [f"-{name}={value}" for name, value in options.items() if value]


def _escaped(token: bytes) -> str:
    return "".join(rf"\x{byte:02x}" for byte in token)


def _result(target: str, output: str, status: int) -> Result:
    crash = re.search(r"Test unit written to (\S+)", output)
    raised = re.search(r"Uncaught Python exception: ===\n(.+)", output) or re.search(r"ERROR: (.+)", output)
    error = "" if status == 0 else raised[1] if raised else f"exit status {status}: {output[-500:]}"
    inputs, rates = _numbers("number_of_executed_units", output), _numbers("average_exec_per_sec", output)
    seconds = sum(number / max(1, rate) for number, rate in zip(inputs, rates, strict=False))
    return Result(
        target=target,
        inputs=sum(inputs),
        per_second=round(sum(inputs) / seconds) if seconds else 0,
        crash=Path(crash[1]) if crash and error else None,
        error=error,
    )


def _numbers(name: str, output: str) -> list[int]:
    return [int(each) for each in re.findall(rf"stat::{name}:\s+(\d+)", output)]


def _fuzz(target: str, corpus: str, guided: list[str], others: list[str]) -> None:
    """Fuzz in a copy of this process with instrumented functions, then in this one without."""
    import atheris
    from prometheus_client import ProcessCollector

    logging.getLogger("phasebus").setLevel(logging.CRITICAL)
    module = load(target)
    ProcessCollector.collect = lambda self: ()  # type: ignore[method-assign]  # it reads /proc, and no input changes it
    if copy := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        if status:
            sys.exit(abs(status))
    else:
        for function in _functions_in(module.INSTRUMENTED):
            atheris.instrument_func(function)
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    atheris.Setup([target, *(others if copy else guided), corpus], module.check)
    atheris.Fuzz()


def _functions_in(packages: Sequence[str]) -> list[FunctionType]:
    names = tuple(f"{each}." for each in packages)
    functions = (each for each in gc.get_objects() if isinstance(each, FunctionType))
    return [each for each in functions if f"{each.__module__}.".startswith(names)]


if __name__ == "__main__":
    end = sys.argv.index("--")
    _fuzz(sys.argv[1], sys.argv[2], sys.argv[3:end], sys.argv[end + 1 :])
