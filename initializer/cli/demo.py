"""`phasebus demo`: start a real Ray and a real vLLM with a generated tiny model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from phasebus.initializer.cli.interrupts import interruptible_imports
from phasebus.initializer.cli.options import starting_options
from phasebus.initializer.cli.output import write_err

_PROMPT = "A start-up is"


@click.command()
@click.option("--prompt", default=_PROMPT, show_default=True, help="Prompt to generate from.")
@starting_options
def demo(prompt: str, *, once: bool, host: str | None, port: int | None, linger: float | None, verbose: bool) -> None:
    """Start a local Ray and a real vLLM with a tiny model of random weights, and show where the time went.

    The generated text is gibberish because the weights are random; everything else is real. It takes about a minute.
    """
    with interruptible_imports():  # here, so that the help of the command needs none of them
        from phasebus.initializer.cli.failures import reported
        from phasebus.initializer.cli.start import start_and_serve
        from phasebus.initializer.node.config import LLMConfig

    with reported(tracebacks=verbose, starts=True) as report:
        config = LLMConfig(
            model=str(_tiny_model()),
            engine_args={"max_model_len": 256, "enforce_eager": True, "dtype": "bfloat16"},
            engine_env={"VLLM_CPU_KVCACHE_SPACE": "1"},
        )
        write_err("The model is tiny and its weights are random: the text that it generates has no meaning")
        service = {"host": host, "port": port, "linger_seconds": linger}
        start_and_serve(config, report, prompt=prompt, once=once, service=service)


def _tiny_model() -> Path:
    """Return the folder of the tiny model; write the model if it does not exist.

    Another process writes it, because torch would stay loaded in this one.
    """
    from phasebus.bus import PhasebusError
    from phasebus.initializer.cli import demo_model

    path = demo_model.tiny_model_path()
    if not (path / "config.json").is_file():
        write_err(f"Writing a tiny model with random weights to {path} (once; about 10 s)")
        written = subprocess.run(  # noqa: S603  # our own module
            [sys.executable, "-P", "-m", demo_model.__name__, str(path)], capture_output=True, text=True, check=False
        )
        if written.returncode:
            reason = (written.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise PhasebusError(
                f"cannot write the tiny model to {path}: {reason}. "
                "It needs transformers and torch, which vLLM installs: pip install 'phasebus[vllm]'"
            )
    return path
