"""Run the fuzz targets: ``python -m tests.fuzz [TARGET…]`` (`make fuzz`), each in a process of its own, one for each CPU.

INPUTS and SECONDS in the environment limit each target; the first limit that is reached ends it. The inputs come from
libFuzzer, by way of atheris, which mutates the seeds towards code that no input has reached yet. An input that a target
fails on is shrunk and saved in ``.fuzz/``; ``python -m tests.fuzz --repeat TARGET FILE`` passes it to the target again (``-``: standard input).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.fuzz.process import run_all
from tests.fuzz.targets import TARGETS, load

INPUTS = 1_000_000
FOLDER = Path(".fuzz")


def main(arguments: list[str]) -> int:
    """Run the targets and print the result of each; return how many failed."""
    if arguments[:1] == ["--repeat"]:
        file = arguments[2]
        load(arguments[1]).check(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
        return 0
    seconds = float(os.environ.get("SECONDS") or 0)
    inputs = int(os.environ.get("INPUTS") or (0 if seconds else INPUTS))
    return sum(result.failed for result in run_all(arguments or TARGETS, FOLDER, inputs=inputs, seconds=seconds))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
