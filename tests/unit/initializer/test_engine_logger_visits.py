"""Configurations of logging in a fork: their outcome is that of Python's own, and they visit few loggers.

Each runs in a process of its own, because it is about the settings of a whole process.
"""

from __future__ import annotations

import subprocess
import sys

from phasebus.initializer.engines.vllm.inside.forkserver import loggers

BOTH_WAYS = """
import json, logging, logging.config, os, sys
from phasebus.initializer.engines.vllm.inside.forkserver.loggers import limit_logger_visits

NAMES = ["vllm", "vllm.a", "vllm.a.b", "vllm.c", "vllm.d", "vllm.e", "other", "other.a", "other.b.c", "uvicorn.a", "uvicorn.b"]
CONFIG = {"version": 1, "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}}
CONFIG["loggers"] = {"vllm": {"level": "INFO", "handlers": ["out"], "propagate": False}, "uvicorn": {"level": "ERROR"}}

def configure(**others):
    logging.config.dictConfig({**json.loads(json.dumps(CONFIG)), **others})

def enabled(logger):
    return [logger.isEnabledFor(level) for level in (10, 20, 30, 40)]

def state(logger):
    if not isinstance(logger, logging.Logger):
        return None
    handlers = [type(each).__name__ for each in logger.handlers]
    return [logger.level, logger.propagate, logger.disabled, handlers, logger.parent.name, enabled(logger)]

def change(get):
    get("vllm.a").setLevel(10)
    get("vllm.c").addHandler(logging.NullHandler())
    get("vllm.d").propagate = False
    get("other.a").disabled = True
    get("vllm.new").setLevel(40)
    get("other.b").setLevel(10)  # of which only a child existed
    get("uvicorn.b").disabled = True

SCENARIOS = {
    "as created": lambda get: configure(disable_existing_loggers=False),
    "used": lambda get: ([enabled(get(name)) for name in NAMES], configure(disable_existing_loggers=False)),
    "changed": lambda get: (change(get), configure(disable_existing_loggers=False)),
    "changed later": lambda get: (configure(disable_existing_loggers=False), change(get)),
    "twice": lambda get: (change(get), configure(disable_existing_loggers=False), configure(disable_existing_loggers=False)),
    "existing disabled": lambda get: configure(),
    "existing disabled, and enabled": lambda get: (configure(), configure(disable_existing_loggers=False)),
    "incremental": lambda get: (change(get), configure(handlers={}, incremental=True, loggers={"vllm.a": {"level": "ERROR"}})),
    "root": lambda get: configure(disable_existing_loggers=False, root={"level": "ERROR", "handlers": ["out"]}),
    "level of a parent": lambda get: ([enabled(get(name)) for name in NAMES], get("other").setLevel(40)),
    "disabled levels": lambda get: ([enabled(get(name)) for name in NAMES], logging.disable(30)),
}

def outcome(scenario, limited):
    receiver, sender = os.pipe()
    if os.fork() == 0:
        for name in NAMES:
            logging.getLogger(name)
        logging.getLogger("vllm.e").setLevel(30)
        logging.getLogger("other").disabled = True
        logging.getLogger("uvicorn.a").addHandler(logging.NullHandler())
        if limited:
            limit_logger_visits()
        SCENARIOS[scenario](logging.getLogger)
        loggers = logging.Logger.manager.loggerDict
        states = {name: state(loggers[name]) for name in sorted(loggers)}
        os.write(sender, json.dumps([states, state_of_root()]).encode())
        os._exit(0)
    os.close(sender)
    with open(receiver) as file:
        os.wait()
        return json.load(file)

def state_of_root():
    return [logging.root.level, len(logging.root.handlers), enabled(logging.root)]

for scenario in SCENARIOS:
    plain, limited = outcome(scenario, False), outcome(scenario, True)
    assert plain == limited, (scenario, plain, limited)
"""

UNVISITED = """
import logging, logging.config
from phasebus.initializer.engines.vllm.inside.forkserver.loggers import limit_logger_visits

class Untouchable:
    __slots__ = ()

for name in ("vllm.a", "other"):
    logging.getLogger(name)
limit_logger_visits()
logging.getLogger("vllm.b").setLevel(10)
known = logging.Logger.manager.loggerDict
known.update({"vllm.a": Untouchable(), "other": Untouchable()})
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": {"vllm": {"level": "INFO"}}})
assert logging.getLogger("vllm.b").level == 0
del known["vllm.a"], known["other"]
assert logging.config.logging is logging
"""


def run(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_limited_configurations_have_the_outcome_of_unlimited_ones() -> None:
    run(BOTH_WAYS)


def test_loggers_that_are_as_created_are_not_visited() -> None:
    run(UNVISITED)


def test_changed_functions_of_logging_are_left_alone() -> None:
    run(
        "import logging\n"
        f"from {loggers.__name__} import limit_logger_visits\n"
        "other = logging.Manager._clear_cache = lambda self: None\n"
        "limit_logger_visits()\n"
        "assert logging.Manager._clear_cache is other and '__setattr__' not in vars(logging.Logger)\n"
    )
